"""The combined signal: calibrated, strictly ordered, and measured no further than the decision needs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Cascade, Gate, SelfConsistency, Threshold, TokenLogprob
from confroute.asks import Evidence, Sample
from confroute.errors import CalibrationError, PolicyError, SignalUnavailableError
from confroute.fitting import crossfit_combined, fit_combined, mean_rank, predicted
from confroute.signals import Case, Combined, LogisticCalibrator, Member, MonotoneInterpolator
from confroute.stats.metrics import auroc, ece
from confroute.types import Generation, Tier

SIGNALS = {"token_logprob.mean": TokenLogprob(), "self_consistency": SelfConsistency(n=5)}


def columns(n=600, seed=0):
    """Two signals that each tell part of the errors, one of them missing on every tenth call."""
    generator = np.random.default_rng(seed)
    hard = generator.random(n)
    edge = (generator.random(n) > hard).astype(float)
    cloud = (generator.random(n) > 0.5 * hard).astype(float)
    nats = np.exp(2 * hard + generator.normal(0, 1, n))
    share = generator.binomial(5, np.clip(hard + generator.normal(0, 0.2, n), 0, 1)) / 5
    share[::10] = np.nan
    return np.column_stack([nats, share]), edge, cloud


@pytest.fixture(scope="module")
def fitted():
    """A combination of both."""
    return fit_combined(SIGNALS, *columns())


def test_out_of_fold_it_is_calibrated_and_ranks_better_than_each():
    """Also than mean fusion; the probabilities are right where the raw numbers are not."""
    u, edge, cloud = columns(1500)
    wrong, gain = crossfit_combined(SIGNALS, u, edge, cloud)
    single = [auroc(np.nan_to_num(u[:, at], nan=np.nanmedian(u[:, at])), edge == 0) for at in (0, 1)]
    assert auroc(wrong, edge == 0) > max(*single)
    assert auroc(wrong, edge == 0) >= auroc(mean_rank(u), edge == 0) - 0.005
    assert ece(wrong, 1 - edge) < 0.05 < ece(1 - np.exp(-u[:, 0]), 1 - edge)
    tenths = np.array_split(np.argsort(gain), 5)
    for part in tenths:
        assert gain[part].mean() == pytest.approx((cloud - edge)[part].mean(), abs=0.09)


def test_values_keep_the_order_of_the_logits(fitted):
    """Isotonic regression is flat in places; the combined value is not."""
    logits = np.linspace(-4, 4, 400)
    for head in (fitted.wrong, fitted.gain):
        values = [head.value(x) for x in logits]
        assert (np.diff(values) > 0).all()
        assert head.low <= values[0] <= values[-1] <= head.high


def test_a_file_holds_it_whole(fitted, tmp_path):
    """Weights and curves come back equal."""
    policy = Cascade(gates=(Gate(signal=fitted, threshold=Threshold(value=0.1)),))
    policy.save(tmp_path / "policy.json")
    assert Cascade.load(tmp_path / "policy.json") == policy


def measure(signal, logprob, texts, settled):
    """The measurement of one draft, and how many samples it took."""
    case = Case(
        tier=Tier(name="edge", model="m"),
        question="How many?",
        draft=Generation(text="7", logprobs=None if logprob is None else (logprob,)),
        settled=settled,
    )
    left, flow, drawn = iter(texts), signal.measure(case), 0
    try:
        ask = next(flow)
        while True:
            assert isinstance(ask, Sample)
            drawn += ask.n
            ask = flow.send(Evidence(generations=tuple(Generation(text=next(left)) for _ in range(ask.n))))
    except StopIteration as done:
        return done.value, drawn


@given(
    st.floats(-8, 0),
    st.lists(st.sampled_from(["7", "8"]), min_size=5, max_size=5),
    st.floats(-0.4, 0.8),
)
def test_stopping_early_never_changes_the_decision(logprob, texts, threshold):
    """Whatever the draft and the samples are, the decision is that of all the evidence."""
    fitted = _fitted()
    full, all_drawn = measure(fitted, logprob, texts, lambda low, high: False)
    early, drawn = measure(fitted, logprob, texts, lambda low, high: not low <= threshold < high)
    assert (early.uncertainty <= threshold) == (full.uncertainty <= threshold)
    assert drawn <= all_drawn == 5


_CACHE = []


def _fitted():
    if not _CACHE:
        _CACHE.append(fit_combined(SIGNALS, *columns()))
    return _CACHE[0]


def test_a_clear_draft_draws_no_sample(fitted):
    """Where no sample could change the decision none is drawn, and the details say what was not needed."""
    found, drawn = measure(fitted, -0.01, ["7"] * 5, lambda low, high: not low <= 0.95 < high)
    assert drawn == 0
    assert found.details["not_needed"] == ["self_consistency"]
    assert set(found.details) == {"p_wrong", "expected_gain", "members", "not_needed"}


def test_members_that_cannot_be_measured_count_as_they_were_fitted(fitted):
    """Without log-probabilities the samples alone decide; without both there is no evidence."""
    found, drawn = measure(fitted, None, ["8"] * 5, lambda low, high: False)
    assert drawn == 5
    assert "no log-probabilities" in found.details["members"]["token_logprob.mean"]
    case = Case(
        tier=Tier(name="edge", model="m", can_sample=False), question="How many?", draft=Generation(text="7")
    )
    with pytest.raises(SignalUnavailableError, match=r"token_logprob.mean: .*self_consistency: "):
        next(fitted.measure(case))


def test_a_gain_is_a_price(fitted):
    """Escalate by gain minus price: the threshold is in units of quality, and may be negative."""
    assert (fitted.decides, fitted.range.low, fitted.range.high) == ("gain", -1.0, 1.0)
    u, edge, cloud = columns()
    _, gain = predicted(fitted, u)
    sent = gain > 0.2
    assert (cloud - edge)[sent].mean() > 0.2 > (cloud - edge)[~sent].mean()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MonotoneInterpolator(at=(), values=()),
        lambda: MonotoneInterpolator(at=(0.0, 0.0), values=(0.0, 1.0)),
        lambda: MonotoneInterpolator(at=(0.0, 1.0), values=(1.0, 0.0)),
        lambda: Combined(
            members=(), wrong=LogisticCalibrator(intercept=0, weights=(), absent=(), calibrated=FLAT)
        ),
        lambda: Combined(
            members=(Member(name="a", signal=TokenLogprob(), rank=FLAT),),
            wrong=LogisticCalibrator(intercept=0, weights=(1.0,), absent=(0.0,), calibrated=FLAT),
            decides="gain",
        ),
        lambda: fit_combined(SIGNALS, np.zeros((10, 2)), np.ones(10)),
        lambda: fit_combined(SIGNALS, np.zeros((100, 1)), np.ones(100)),
        lambda: fit_combined({"a": TokenLogprob()}, np.full((100, 1), math.nan), np.ones(100)),
    ],
)
def test_combinations_that_cannot_be_are_refused(make):
    """Curves that fall, heads for other members, too few rows, columns without a value."""
    with pytest.raises((PolicyError, CalibrationError), match=r"expected|leave it out"):
        make()


FLAT = MonotoneInterpolator(at=(0.0,), values=(0.5,))
