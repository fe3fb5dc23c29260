"""What a certificate says, number by number, on rows whose promise has a closed form."""

import dataclasses
import math

import numpy as np
import pytest

from confroute import Threshold
from confroute.certificate import Certificate
from confroute.errors import CalibrationError, PolicyError, UnmetPromiseError
from confroute.policy.guarantee import most_failures


def failing_from(first, n):
    """n rows of rising uncertainty 0, 1, ..., of which those from `first` on fail."""
    return np.arange(n, dtype=float), (np.arange(n) < first).astype(float)


def promise(**changes):
    """A certificate."""
    numbers = {"alpha": 0.05, "delta": 0.1, "n": 400, "observed": 1 / 3}
    about = {"loss": "regret", "method": "ltt-binomial", "date": "2026-01-02", "data_hash": "0"}
    return Certificate(**{**numbers, **about, **changes})


def test_a_promise_in_words():
    """Loss, bound, confidence, method and rows; without a delta the bound holds on average."""
    assert promise().words == "regret at most 0.05 with confidence 0.9, ltt-binomial on 400 calls"
    assert promise(delta=None, method="crc").words == "regret at most 0.05 on average, crc on 400 calls"
    assert promise().to_dict()["observed"] == 0.333333


@pytest.mark.parametrize("bad", [{"delta": 0.0}, {"delta": 1.0}, {"n": 0}])
def test_promises_of_nothing_are_refused(bad):
    """A delta of 0 or 1 and no row at all; one row is a certificate's least."""
    assert promise(n=1).n == 1
    with pytest.raises(PolicyError, match="at least one row"):
        dataclasses.replace(promise(), **bad)


def test_one_call_ahead_is_promised_by_its_rank():
    """Of n + 1 rows the one to come is one of the first k + 1 to fail with chance (k + 1) / (n + 1): k is 9 of 104."""
    assert most_failures(104, 0.05, 0.1, horizon=1) == 9
    u, edge = failing_from(40, 104)
    found = Threshold.certify(u, edge, alpha=0.05, delta=0.1, horizon=1, grid=u)
    told = found.certificate
    assert (found.value, told.horizon, told.method) == (48.0, 1, "ltt-hypergeometric")
    assert told.observed == pytest.approx(9 / 104)


@pytest.mark.parametrize(
    ("settings", "horizon", "method"),
    [
        ({}, 400, "ltt-hypergeometric"),
        ({"horizon": 50.0}, 50, "ltt-hypergeometric"),
        ({"horizon": math.inf}, None, "ltt-binomial"),
        ({"loss": "error"}, 400, "ltt-hypergeometric"),
        ({"loss": "selective"}, None, "ltt-binomial"),
        ({"loss": "net"}, None, "ltt-betting"),
        ({"delta": None}, None, "crc"),
    ],
)
def test_the_method_and_the_horizon_are_named(settings, horizon, method):
    """By loss, delta and the horizon asked for."""
    told = Threshold.certify(*failing_from(400, 400), alpha=0.1, **settings).certificate
    assert (told.horizon, told.method) == (horizon, method)


def test_graded_answers_are_bounded_without_a_horizon():
    """A loss that is neither 0 nor 1 has no exact test, and no measured mean is promised."""
    u, edge = failing_from(400, 400)
    told = Threshold.certify(u, edge - 0.01, alpha=0.1).certificate
    assert (told.method, told.horizon, told.observed) == ("ltt-betting", None, pytest.approx(0.01))


def test_a_graded_loss_is_a_mean_over_kept_or_over_all_rows():
    """70 of 200 rows are kept and lose 0.04 each: 0.014 over all, and the same 0.04 over the kept, which 70 rows cannot prove."""
    u = np.arange(200, dtype=float)
    edge = np.where(u < 70, 0.96, 1.0)
    found = Threshold.certify(u, edge, alpha=0.05, delta=0.1, grid=[69.0])
    assert (found.value, found.certificate.observed) == (69.0, pytest.approx(0.014))
    with pytest.raises(
        UnmetPromiseError, match=r"with the 70 most certain answers kept, .* 200 rows lose 2\.8"
    ):
        Threshold.certify(u, edge, alpha=0.05, delta=0.1, loss="selective", grid=[69.0])


def test_a_bet_leaves_out_what_is_not_kept():
    """What the cloud and the edge make of rows above the threshold changes no bound, down to the row next to it."""
    u = np.arange(60, dtype=float)

    def least(edge):
        for alpha in np.linspace(0.01, 0.5, 99):
            try:
                return Threshold.certify(u, edge, alpha=alpha, loss="net", grid=[29.0]) and alpha
            except CalibrationError:
                continue
        raise AssertionError

    good, bad = np.ones(60), np.where(u < 30, 1.0, 0.0)
    assert least(good) == least(bad)


def test_a_net_loss_may_be_promised_below_0():
    """An edge that is always right where the cloud never is gains 1 a call; no bound reaches -1 itself."""
    u, edge = failing_from(400, 400)
    assert Threshold.certify(u, edge, np.zeros(400), alpha=-0.5, loss="net", grid=u[-1:]).value == 399.0
    for loss, alpha in (("net", -1.0), ("net", 1.0), ("regret", -0.5)):
        with pytest.raises(CalibrationError, match=f"alpha is {alpha}"):
            Threshold.certify(u, edge, np.zeros(400), alpha=alpha, loss=loss)


@pytest.mark.parametrize("horizon", [0, -1, 1.5, math.nan])
def test_a_horizon_is_a_number_of_calls(horizon):
    """A whole one, from 1."""
    with pytest.raises(CalibrationError, match="a whole number of calls"):
        Threshold.certify(*failing_from(400, 400), alpha=0.1, horizon=horizon)


@pytest.mark.parametrize(
    ("alpha", "kept_failures"),
    [
        (0.05, 4),  # 5 / 100 meets 0.05
        (0.0398, 2),  # 4 / 100 does not meet 0.0398, although 4 / 101 would
    ],
)
@pytest.mark.parametrize("loss", ["regret", "error"])
def test_risk_control_by_hand(alpha, kept_failures, loss):
    """99 rows: (failures kept + 1) / 100 must be at most alpha."""
    u, edge = failing_from(50, 99)
    found = Threshold.certify(u, edge, alpha=alpha, delta=None, loss=loss)
    assert found.value == 49 + kept_failures
    assert found.certificate.observed == pytest.approx(kept_failures / 99)


@pytest.mark.parametrize("loss", ["net", "selective"])
def test_risk_control_needs_a_loss_that_never_falls(loss):
    """The two that may fall as more is kept are refused, a bad row or not."""
    with pytest.raises(CalibrationError, match="never falls as more is kept"):
        Threshold.certify(*failing_from(99, 99), alpha=0.5, delta=None, loss=loss)


def test_selective_risk_by_hand():
    """Two failures among 51 kept prove nothing, P(Bin(51, 0.1) <= 2) = 0.1039, so the walk ends there; among 60, 0.0530 do."""
    u = np.arange(60, dtype=float)
    edge = np.ones(60)
    edge[[40, 50]] = 0.0
    found = Threshold.certify(u, edge, alpha=0.1, delta=0.1, loss="selective")
    assert (found.value, found.certificate.observed) == (49.0, pytest.approx(1 / 50))
    found = Threshold.certify(u, edge, alpha=0.1, delta=0.1, loss="selective", grid=[59.0])
    assert (found.value, found.certificate.observed) == (59.0, pytest.approx(2 / 60))


def test_selective_risk_starts_where_something_can_be_proved():
    """At 0.05 and 0.1 no 44 rows prove anything and 45 do: the least that is kept, of 45 rows all."""
    found = Threshold.certify(*failing_from(45, 45), alpha=0.05, delta=0.1, loss="selective")
    assert found.value == 44.0
    with pytest.raises(CalibrationError, match="at least 45 are needed"):
        Threshold.certify(*failing_from(44, 44), alpha=0.05, delta=0.1, loss="selective")
    # Half an answer is lost at the end: a bet on nothing lost needs 61 rows to be won, (1 + 0.75 * 0.05 / 0.95)**60 being 9.8... .
    u, edge = failing_from(100, 100)
    edge[-1] = 0.5
    found = Threshold.certify(u, edge, alpha=0.05, delta=0.1, loss="selective")
    assert found.certificate.method == "ltt-betting"
    assert found.value >= 98.0


@pytest.mark.parametrize("n", [30, 400, 401])
def test_all_rows_may_be_kept(n):
    """Where none fails the last row is kept, whether the quantiles meet it or not; 30 rows are the fewest."""
    found = Threshold.certify(*failing_from(n, n), alpha=0.1, delta=0.1, horizon=math.inf)
    assert found.value == n - 1
    assert found.certificate.observed == 0.0


def test_a_threshold_of_the_grid_that_keeps_too_little_is_left_out():
    """28.5 keeps 29 rows, which is one too few; 29 keeps 30 and is what remains."""
    u, edge = failing_from(100, 100)
    assert Threshold.certify(u, edge, alpha=0.1, delta=0.1, grid=[28.5, 29.0]).value == 29.0
    with pytest.raises(CalibrationError, match="no threshold of the grid keeps 30 of 100"):
        Threshold.certify(u, edge, alpha=0.1, delta=0.1, grid=[28.5])


@pytest.mark.parametrize(
    ("u", "edge", "cloud"),
    [
        (np.zeros((2, 50)), np.ones((2, 50)), None),
        (np.zeros(100), np.ones(99), None),
        (np.zeros(100), np.ones(100), np.ones(99)),
        (np.zeros(100), np.full(100, 1.5), None),
        (np.zeros(100), np.ones(100), np.full(100, -0.5)),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(u, edge, cloud):
    """Tables, other lengths, and qualities outside [0, 1]."""
    with pytest.raises(CalibrationError, match=r"one quality per row|a quality lies outside"):
        Threshold.certify(u, edge, cloud, alpha=0.1)


@pytest.mark.parametrize("rows", [0, 99])
def test_every_row_has_its_group(rows):
    """One name too few, and no rows at all."""
    u, edge = failing_from(100, 100) if rows else failing_from(0, 0)
    with pytest.raises(CalibrationError, match="expected one name per row"):
        Threshold.certify_groups(["law"] * rows, u, edge, alpha=0.1)
