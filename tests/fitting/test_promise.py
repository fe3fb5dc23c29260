"""What rows can promise beside what was asked of them, and how many rows a promise takes."""

import math
from dataclasses import replace

import numpy as np
import pytest

from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.fitting import (
    GradedCalls,
    MaxLoss,
    apply,
    certified_threshold,
    estimate_rows,
    fit,
    outlook,
    promise_curve,
    table_of,
)
from confroute.fitting.fit import promising
from confroute.recording import Row, Side
from confroute.stats.tails import most_failures


def calls(n=300, *, slope=0.4, seed=0, scale=1.0, cloud=True):
    """Uncertainty in [0, 1]; an answer is wrong with a probability of `slope` times it, and the cloud is always right."""
    generator = np.random.default_rng(seed)
    u = generator.random(n)
    wrong = scale * (generator.random(n) < slope * u)
    return GradedCalls(uncertainty=u, edge_quality=1 - wrong, cloud_quality=np.ones(n) if cloud else None)


@pytest.mark.parametrize("loss", ["regret", "error", "net", "selective", "shortfall"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_every_point_of_the_curve_can_be_promised_and_less_than_the_first_cannot(loss, scale):
    """A goal at a point gives its threshold; a thousandth below the least is refused."""
    goal, rows = MaxLoss(alpha=0.5, loss=loss), calls(scale=scale)
    curve = promise_curve(goal, rows)
    assert len(curve) >= 2
    for point in curve[:: max(1, len(curve) // 3)]:
        again = certified_threshold(MaxLoss(alpha=point.alpha, loss=loss), rows)
        assert again.value == point.threshold
        assert point.cloud_share == pytest.approx((rows.uncertainty > point.threshold).mean())
    assert [p.cloud_share for p in curve] == sorted((p.cloud_share for p in curve), reverse=True)
    assert [p.alpha for p in curve] == sorted(p.alpha for p in curve)
    with pytest.raises(UnmetPromiseError):
        certified_threshold(MaxLoss(alpha=round(curve[0].alpha - 0.001, 3), loss=loss), rows)


def test_the_least_promise_has_a_closed_form():
    """No wrong answer among the first 40: the least alpha is the first at which no failure in 100 rows proves it."""
    u = np.arange(100.0)
    rows = GradedCalls(uncertainty=u, edge_quality=(u < 40).astype(float), cloud_quality=np.ones(100))
    least = next(k / 1000 for k in range(1, 1000) if most_failures(100, k / 1000, 0.1) >= 0)
    curve = promise_curve(MaxLoss(alpha=0.5, horizon=math.inf), rows)
    assert curve[0].alpha == least
    assert curve[-1].cloud_share == 0.0


def test_the_estimate_of_rows_is_where_the_promise_begins_to_hold():
    """Of 40 runs of the estimated number at least two thirds can be promised, of half as many fewer than a half."""
    goal = MaxLoss(alpha=0.05)
    needed = estimate_rows(goal, calls(400, seed=3), least=30)

    def held(n):
        met = 0
        for seed in range(40):
            try:
                certified_threshold(goal, calls(n, seed=100 + seed))
                met += 1
            except UnmetPromiseError:
                pass
        return met / 40

    assert 60 <= needed.n <= 200
    assert held(needed.n) > 2 / 3
    assert held(needed.n // 2) < 1 / 2
    assert 0 < needed.cloud_share < 1


def test_more_rows_do_not_help_where_the_most_certain_calls_lose_too_much():
    """Half of the calls have the lowest uncertainty, and a third of these are wrong."""
    u = np.repeat([0.0, 1.0], 150)
    right = (np.arange(300) % 3 != 0).astype(float)
    rows = GradedCalls(uncertainty=u, edge_quality=right, cloud_quality=np.ones(300))
    found = outlook(MaxLoss(alpha=0.05), rows)
    assert found.needed is None
    assert found.lowest == pytest.approx(1 / 6)
    assert (
        "cannot be met by more rows like these: even the most cautious threshold loses 0.167" in found.words
    )
    assert found.curve[0].alpha > 1 / 6


def rows_of(n, **settings):
    made = calls(n, **settings)
    return [
        Row(id=str(i), edge=Side(quality=float(q)), cloud=Side(quality=1.0), signals={"u": float(u)})
        for i, (u, q) in enumerate(zip(made.uncertainty, made.edge_quality, strict=True))
    ]


def test_a_refused_fit_says_what_can_be_promised_and_how_many_rows_it_takes():
    """In words and as data: the least loss, a curve, and an estimate that is called one."""
    with pytest.raises(UnmetPromiseError) as told:
        fit(rows_of(50), MaxLoss(alpha=0.05), signal="u")
    message, instead = str(told.value), told.value.instead
    assert message.startswith("50 calibration rows cannot guarantee a regret of 0.05")
    least = instead["promise_curve"][0]
    assert f"the smallest loss that can be promised on these 50 rows is {least['alpha']:g}" in message
    assert (
        f"for 0.05 with confidence 0.9 you need about {instead['needed']['rows']} calibration rows" in message
    )
    assert "an estimate from resamples" in message
    assert 60 <= instead["needed"]["rows"] <= 200
    assert fit(rows_of(50), MaxLoss(alpha=least["alpha"]), signal="u").certificate.n == 50


def test_too_few_rows_say_how_many_there_are_and_what_chose_the_signal():
    """Forty rows, of which twelve chose between two signals."""
    rows = rows_of(40)
    for at, row in enumerate(rows):
        row.signals["noise"] = at % 7 / 7
    with pytest.raises(UnmetPromiseError, match=r"^28 calibration rows are too few: at least 30") as told:
        fit(rows, MaxLoss(alpha=0.05), replay_only=True)
    assert str(told.value).count("28") == 2, "once as what was given, once with what it could promise"
    assert "12 more rows were held back to choose the signal" in str(told.value)
    assert "you need about" in str(told.value)


def test_a_fit_holds_its_curve_and_its_json():
    """Beside the goal: the least promise, and the share that each costs; none for another goal."""
    found = fit(rows_of(400), MaxLoss(alpha=0.1), signal="u")
    assert found.promise_curve[0].alpha < 0.1 < found.promise_curve[-1].alpha
    told = found.to_dict("p.json")["promise_curve"]
    assert told[0] == {
        "alpha": found.promise_curve[0].alpha,
        "cloud_share": round(found.promise_curve[0].cloud_share, 6),
        "threshold": found.promise_curve[0].threshold,
    }


def test_a_promised_quality_needs_a_graded_cloud():
    """What the cloud answers is part of it."""
    with pytest.raises(CalibrationError, match="a shortfall loss needs the cloud's grades"):
        certified_threshold(MaxLoss(alpha=0.2, loss="shortfall"), calls(cloud=False))


def test_a_signal_that_cannot_make_the_promise_is_not_chosen():
    """Two values that tell most errors, and a fine one that tells fewer: where the coarse one keeps, too much is lost."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(600):
        coarse = float(generator.random() < 0.5)
        fine = generator.random()
        wrong = generator.random() < (0.9 if coarse else 0.16) * (0.4 + 0.6 * fine)
        side = Side(quality=float(not wrong))
        rows.append(
            Row(id=str(i), edge=side, cloud=Side(quality=1.0), signals={"coarse": coarse, "fine": fine})
        )
    table = table_of(rows)
    assert promising(MaxLoss(alpha=0.05), table, table.columns) == ["fine"]
    assert list(promising(MaxLoss(alpha=0.3), table, table.columns)) == ["coarse", "fine"]
    assert list(promising(MaxLoss(alpha=1e-6), table, ["coarse"])) == ["coarse"]
    with pytest.raises(UnmetPromiseError):
        fit(rows, MaxLoss(alpha=0.05), signal="coarse")
    assert fit(rows, MaxLoss(alpha=0.05), replay_only=True).certificate is not None


def test_a_promised_quality_is_judged_by_both_models_answers():
    """On other rows: one less the quality that the policy returned, whichever model gave it."""
    rows = [
        replace(row, cloud=Side(quality=float(at % 25 != 0)))
        for at, row in enumerate(rows_of(1200, slope=0.3))
    ]
    found = fit(rows[:600], MaxLoss(alpha=0.15, loss="shortfall"), signal="u")
    applied = apply(found.policy, rows[600:])
    (verdict,) = applied.verdicts
    assert verdict.loss == pytest.approx(1 - applied.expected.quality)
    assert verdict.n == 600
