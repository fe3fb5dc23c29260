"""The promise of repeated certification, checked where the truth is known in closed form."""

import math

import numpy as np
import pytest

from confroute.errors import CalibrationError, PolicyError
from confroute.learning import Learned, Looks
from confroute.policy import Threshold

# Uncertainty is uniform and an answer is bad with probability u^2: keeping up to t loses t^3 / 3 a call.
ALPHA, DELTA = 0.1, 0.1
BOLDEST = (3 * ALPHA) ** (1 / 3)


def traffic(seed, n):
    """Labels of calls with that truth."""
    draw = np.random.default_rng(seed)
    u = draw.random(n)
    return list(zip(u.tolist(), (draw.random(n) < u**2).astype(float).tolist(), strict=True))


def certified(seed, looks):
    """The boldest threshold that any look certified, and what was known in the end."""
    rows, known, boldest = traffic(seed, looks.most), Learned(), 0.0
    for n in looks.at:
        known = looks.after(known, rows[:n], 0.25)
        if known.threshold is not None and known.threshold.certificate is not None:
            boldest = max(boldest, known.threshold.value)
    return boldest, known


def naive(seed, looks):
    """Whether certifying at every look at the whole delta ever breaks the promise."""
    rows = np.asarray(traffic(seed, looks.most))
    for n in looks.at:
        try:
            found = Threshold.certify(
                rows[:n, 0], 1 - rows[:n, 1], alpha=ALPHA, delta=DELTA, horizon=math.inf
            )
        except CalibrationError:
            continue
        if found.value > BOLDEST:
            return True
    return False


def test_no_look_breaks_the_promise_in_nine_of_ten_runs():
    """Of 100 runs of five looks at most 10 ever certify a threshold that loses more; most end near the boldest."""
    looks = Looks(alpha=ALPHA, delta=DELTA, most=800)
    found = [certified(seed, looks) for seed in range(100)]
    assert sum(boldest > BOLDEST for boldest, _ in found) <= DELTA * len(found)
    ends = [known.threshold.value for _, known in found if known.threshold is not None]
    assert len(ends) >= 95
    assert np.median(ends) > 0.85 * BOLDEST


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_looking_often_without_sharing_delta_would_break_it():
    """1,000 runs: the shared delta holds, and spending the whole of it at every look does not."""
    looks = Looks(alpha=ALPHA, delta=DELTA, most=800)
    runs = 1000
    assert sum(certified(seed, looks)[0] > BOLDEST for seed in range(runs)) <= DELTA * runs
    assert sum(naive(seed, looks) for seed in range(runs)) > 1.5 * DELTA * runs


def test_looks_are_few_and_planned():
    """Halvings of the most, down to as few labels as could prove anything at their share of delta."""
    looks = Looks(alpha=0.05, delta=0.1, most=2000)
    assert looks.at == (125, 250, 500, 1000, 2000)
    assert (1 - 0.05) ** 125 <= 0.1 / 5
    assert Looks(alpha=0.05, delta=0.1, most=45).at == (45,)


def test_levels_that_no_label_could_reach_are_refused():
    """With the number that could."""
    with pytest.raises(PolicyError, match="at least 45 are needed"):
        Looks(alpha=0.05, delta=0.1, most=44)
    with pytest.raises(PolicyError, match="between 0 and 1"):
        Looks(alpha=0.0, delta=0.1, most=100)


def test_between_looks_nothing_changes():
    """One label more is counted, and that is all."""
    looks = Looks(alpha=ALPHA, delta=DELTA, most=800)
    rows = traffic(1, 800)
    known = looks.after(Learned(), rows[:50], 0.25)
    later = looks.after(known, rows[:51], 0.25)
    assert (later.look, later.threshold, later.labels) == (1, known.threshold, 51)


def test_a_bad_edge_is_tightened_without_a_promise_and_says_so():
    """Where nothing can be proved, the threshold goes to where the labels lose no more than alpha."""
    looks = Looks(alpha=ALPHA, delta=DELTA, most=800)
    draw = np.random.default_rng(0)
    rows = [(float(u), float(draw.random() < 0.8)) for u in draw.random(50)]
    known = looks.after(Learned(), rows, 0.9)
    assert known.threshold.certificate is None
    assert known.threshold.value < 0.3
    assert "nothing promised" in known.threshold.source
    kept = [loss for u, loss in rows if u <= known.threshold.value]
    assert sum(kept) / len(rows) <= ALPHA


def test_a_tightened_threshold_is_loosened_by_better_labels():
    """And a certified one is not taken back by a look that proves nothing."""
    looks = Looks(alpha=ALPHA, delta=DELTA, most=800)
    bad = [(0.001 * at, 1.0) for at in range(50)]
    tight = looks.after(Learned(), bad, 0.25)
    good = bad + [(0.01 + 0.9 * at / 750, 0.0) for at in range(750)]
    known = tight
    for n in looks.at[1:]:
        known = looks.after(known, good[:n], 0.25)
    assert known.threshold.certificate is not None
    assert known.threshold.value > 0.25
    promised = looks.after(Learned(), [(at / 100, 0.0) for at in range(50)], 0.25)
    kept = looks.after(promised, [(at / 200, 1.0) for at in range(100)], 0.25)
    assert (kept.look, kept.threshold) == (2, promised.threshold)


def test_the_certificate_states_the_shared_delta():
    """Whichever look is the last so far: with probability 1 - delta none is ever broken."""
    looks = Looks(alpha=ALPHA, delta=DELTA, most=800)
    known = looks.after(Learned(), [(at / 100, 0.0) for at in range(50)], 0.25)
    promise = known.threshold.certificate
    assert (promise.delta, promise.alpha, promise.n, promise.loss) == (DELTA, ALPHA, 50, "regret")
    assert "look 1 of 5" in known.threshold.source
    assert Learned.from_dict(known.to_dict()) == known


def test_a_tightened_threshold_loses_no_more_than_it_says():
    """Signals of few values have many rows at one value, which are kept or sent on together."""
    looks = Looks(alpha=0.1, delta=0.1, most=100)
    rows = [(0.2, 0.0)] * 50 + [(0.4, 0.0)] * 35 + [(0.4, 1.0)] * 15
    found = looks.after(Learned(look=len(looks.at) - 1), rows, 0.6).threshold
    assert found.value == 0.2
