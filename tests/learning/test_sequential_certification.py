"""The guarantee of repeated certification, checked on traffic whose true regret is known in closed form."""

import math

import numpy as np
import pytest

from confroute.errors import CalibrationError, PolicyError
from confroute.learning import LearningState, SequentialCertification
from confroute.policy import Threshold

# Uncertainty is uniform and an answer is bad with probability u^2: keeping up to t loses t^3 / 3 per call.
ALPHA, DELTA = 0.1, 0.1
LARGEST_ALLOWED = (3 * ALPHA) ** (1 / 3)


def traffic(seed, n):
    """Labels drawn from that distribution."""
    draw = np.random.default_rng(seed)
    u = draw.random(n)
    return list(zip(u.tolist(), (draw.random(n) < u**2).astype(float).tolist(), strict=True))


def run(seed, certification):
    """The largest threshold that any look certified, and the final state."""
    rows, state, largest = traffic(seed, certification.max_labels), LearningState(), 0.0
    for n in certification.looks:
        state = certification.update(state, rows[:n], 0.25)
        if state.threshold is not None and state.threshold.certificate is not None:
            largest = max(largest, state.threshold.value)
    return largest, state


def breaks_without_sharing(seed, certification):
    """Whether certifying with the whole delta at every look ever breaks the guarantee."""
    rows = np.asarray(traffic(seed, certification.max_labels))
    for n in certification.looks:
        try:
            threshold = Threshold.certify(
                rows[:n, 0], 1 - rows[:n, 1], alpha=ALPHA, delta=DELTA, horizon=math.inf
            )
        except CalibrationError:
            continue
        if threshold.value > LARGEST_ALLOWED:
            return True
    return False


def test_the_guarantee_holds_in_nine_of_ten_runs():
    """Of 100 runs of five looks at most 10 ever certify a threshold that loses more; most end near the largest allowed."""
    certification = SequentialCertification(alpha=ALPHA, delta=DELTA, max_labels=800)
    runs = [run(seed, certification) for seed in range(100)]
    assert sum(largest > LARGEST_ALLOWED for largest, _ in runs) <= DELTA * len(runs)
    ends = [state.threshold.value for _, state in runs if state.threshold is not None]
    assert len(ends) >= 95
    assert np.median(ends) > 0.85 * LARGEST_ALLOWED


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_looking_often_without_sharing_delta_would_break_it():
    """1,000 runs: the shared delta holds, and spending the whole of it at every look does not."""
    certification = SequentialCertification(alpha=ALPHA, delta=DELTA, max_labels=800)
    runs = 1000
    assert sum(run(seed, certification)[0] > LARGEST_ALLOWED for seed in range(runs)) <= DELTA * runs
    assert sum(breaks_without_sharing(seed, certification) for seed in range(runs)) > 1.5 * DELTA * runs


def test_looks_are_few_and_planned():
    """The number of labels is halved down to the smallest that can prove anything at its share of delta."""
    assert SequentialCertification(alpha=0.05, delta=0.1, max_labels=2000).looks == (
        125,
        250,
        500,
        1000,
        2000,
    )
    assert (1 - 0.05) ** 125 <= 0.1 / 5
    assert SequentialCertification(alpha=0.05, delta=0.1, max_labels=45).looks == (45,)


def test_levels_that_the_labels_could_never_prove_are_refused():
    """The error names the number of labels that could."""
    with pytest.raises(PolicyError, match="at least 45 are needed"):
        SequentialCertification(alpha=0.05, delta=0.1, max_labels=44)
    with pytest.raises(PolicyError, match="between 0 and 1"):
        SequentialCertification(alpha=0.0, delta=0.1, max_labels=100)


def test_between_looks_the_threshold_stays():
    """One more label is counted, and nothing else changes."""
    certification = SequentialCertification(alpha=ALPHA, delta=DELTA, max_labels=800)
    rows = traffic(1, 800)
    state = certification.update(LearningState(), rows[:50], 0.25)
    later = certification.update(state, rows[:51], 0.25)
    assert (later.look, later.threshold, later.labels) == (1, state.threshold, 51)


def test_the_threshold_of_a_bad_edge_is_tightened_without_a_certificate():
    """Where nothing can be proved, the threshold moves to where the labels lose at most alpha, and its source says so."""
    certification = SequentialCertification(alpha=ALPHA, delta=DELTA, max_labels=800)
    draw = np.random.default_rng(0)
    rows = [(float(u), float(draw.random() < 0.8)) for u in draw.random(50)]
    threshold = certification.update(LearningState(), rows, 0.9).threshold
    assert threshold.certificate is None
    assert threshold.value < 0.3
    assert "nothing promised" in threshold.source
    kept = [loss for u, loss in rows if u <= threshold.value]
    assert sum(kept) / len(rows) <= ALPHA


def test_a_tightened_threshold_is_loosened_by_better_labels():
    """And a look that proves nothing does not revoke a certified threshold."""
    certification = SequentialCertification(alpha=ALPHA, delta=DELTA, max_labels=800)
    bad = [(0.001 * at, 1.0) for at in range(50)]
    state = certification.update(LearningState(), bad, 0.25)
    good = bad + [(0.01 + 0.9 * at / 750, 0.0) for at in range(750)]
    for n in certification.looks[1:]:
        state = certification.update(state, good[:n], 0.25)
    assert state.threshold.certificate is not None
    assert state.threshold.value > 0.25
    certified = certification.update(LearningState(), [(at / 100, 0.0) for at in range(50)], 0.25)
    later = certification.update(certified, [(at / 200, 1.0) for at in range(100)], 0.25)
    assert (later.look, later.threshold) == (2, certified.threshold)


def test_the_certificate_states_the_shared_delta():
    """Whichever look is the latest: with probability 1 - delta no certified threshold is ever broken."""
    certification = SequentialCertification(alpha=ALPHA, delta=DELTA, max_labels=800)
    state = certification.update(LearningState(), [(at / 100, 0.0) for at in range(50)], 0.25)
    certificate = state.threshold.certificate
    expected = (DELTA, ALPHA, 50, "regret")
    assert (certificate.delta, certificate.alpha, certificate.n, certificate.loss) == expected
    assert "look 1 of 5" in state.threshold.source
    assert LearningState.from_dict(state.to_dict()) == state


def test_rows_of_equal_uncertainty_are_kept_or_escalated_together():
    """A tightened threshold at a value that many rows share counts the losses of all of them."""
    certification = SequentialCertification(alpha=0.1, delta=0.1, max_labels=100)
    rows = [(0.2, 0.0)] * 50 + [(0.4, 0.0)] * 35 + [(0.4, 1.0)] * 15
    state = LearningState(look=len(certification.looks) - 1)
    assert certification.update(state, rows, 0.6).threshold.value == 0.2
