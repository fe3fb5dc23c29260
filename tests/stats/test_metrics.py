"""Statistics of uncertainties: closed forms, brute force, properties, and numbers known of recorded data."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from confroute.stats.isotonic import crossfit_probability, fit_isotonic
from confroute.stats.metrics import (
    MetricError,
    apgr,
    apgr_binned,
    auroc,
    bootstrap_ci,
    ece,
    prr,
    risk_coverage,
)

# Few distinct values, so that ties are the rule.
few = st.integers(-3, 3)
graded = st.lists(st.tuples(few, st.booleans()), min_size=2, max_size=25)
pairs = st.lists(
    st.tuples(few, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=6
)


def columns(rows):
    return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))


def slow_auroc(u, wrong):
    """Every pair of a wrong and a right answer."""
    bad, good = u[wrong == 1], u[wrong == 0]
    wins = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    return wins / (len(bad) * len(good)) if len(bad) and len(good) else None


def over_tied_orders(u, of_order):
    """Mean of a statistic over all orders that agree with the uncertainty."""
    found = [of_order([*order]) for order in permutations(range(len(u))) if (np.diff(u[[*order]]) >= 0).all()]
    return np.mean(found, axis=0)


def slow_risks(u, quality):
    """Mean loss of the k least uncertain, for each k."""
    return over_tied_orders(u, lambda order: [1 - quality[order[:k]].mean() for k in range(1, len(u) + 1)])


def slow_apgr(u, edge, cloud):
    """Quality after moving rows to the cloud one by one, by trapezoids."""

    def area(order):
        mixed, curve = edge.copy(), [edge.mean()]
        for row in order:
            mixed[row] = cloud[row]
            curve.append(mixed.mean())
        recovered = (np.array(curve) - edge.mean()) / (cloud.mean() - edge.mean())
        return ((recovered[1:] + recovered[:-1]) / 2).mean()

    return over_tied_orders(-u, area)


@given(graded)
def test_auroc_is_the_share_of_pairs(rows):
    """It equals counting all pairs, ties one half."""
    u, wrong = columns(rows)
    slow = slow_auroc(u, wrong)
    assert auroc(u, wrong) == (None if slow is None else pytest.approx(slow, abs=1e-12))


@given(graded)
def test_auroc_depends_on_the_order_only(rows):
    """A rising transformation changes nothing, the opposite uncertainty gives the complement."""
    u, wrong = columns(rows)
    area = auroc(u, wrong)
    assert auroc(np.exp(u) * 3 - 1, wrong) == area
    flipped = auroc(-u, wrong)
    assert flipped == (None if area is None else pytest.approx(1 - area, abs=1e-12))


@given(graded, st.randoms())
def test_row_order_does_not_matter(rows, random):
    """Shuffled rows give the same numbers, however many are tied."""
    shuffled = [*rows]
    random.shuffle(shuffled)
    for statistic in (
        auroc,
        prr,
        lambda u, q: risk_coverage(u, q).aurc,
        lambda u, q: apgr(u, 1 - q, q * 0 + 1),
    ):
        first, second = statistic(*columns(rows)), statistic(*columns(shuffled))
        assert second == (None if first is None else pytest.approx(first, abs=1e-12))


def test_auroc_of_separated_constant_and_infinite():
    """1 for perfect order, exactly one half without information, and infinities are values like others."""
    assert auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1.0
    assert auroc([4, 3, 2, 1], [0, 0, 1, 1]) == 0.0
    assert auroc([7, 7, 7], [0, 1, 1]) == 0.5
    assert auroc([0, math.inf], [0, 1]) == 1.0


def test_undefined_is_none():
    """One class, no gap, no rows or no spread is no number, least of all 0."""
    assert auroc([1, 2], [1, 1]) is None
    assert auroc([1, 2], [0, 0]) is None
    assert auroc([], []) is None
    assert prr([1, 2], [1, 1]) is None
    assert prr([], []) is None
    assert risk_coverage([], []) is None
    assert ece([], []) is None
    assert apgr([1, 2], [1, 0], [0, 1]) is None
    assert apgr([1, 2], [1, 1], [0, 1]) is None
    assert apgr_binned([1, 1], [0, 0], [1, 1]) is None
    assert bootstrap_ci(auroc, [1, 2, 3], [1, 1, 1], n=20) is None
    assert bootstrap_ci(auroc, [], []) is None


@given(pairs)
def test_risk_coverage_is_the_mean_over_tied_orders(rows):
    """Each point is the mean loss of what is kept, over all orders of tied rows."""
    u, quality, _ = columns(rows)
    curve = risk_coverage(u, quality)
    assert curve.risk == pytest.approx(slow_risks(u, quality), abs=1e-12)
    assert curve.aurc == pytest.approx(curve.risk.mean())
    assert curve.coverage[-1] == 1.0


@given(pairs)
def test_prr_is_the_share_of_the_oracles_gain(rows):
    """1 for the oracle's own order, 0 for none, and never above 1."""
    u, quality, _ = columns(rows)
    if quality.min() == quality.max():
        assert prr(u, quality) is None
        return
    random, mine, oracle = (
        1 - quality.mean(),
        slow_risks(u, quality).mean(),
        slow_risks(-quality, quality).mean(),
    )
    assert prr(u, quality) == pytest.approx((random - mine) / (random - oracle), abs=1e-9)
    assert prr(u, quality) <= 1 + 1e-12
    assert prr(-quality, quality) == pytest.approx(1)
    assert prr(np.zeros_like(u), quality) == pytest.approx(0, abs=1e-12)


@given(pairs)
def test_apgr_is_the_area_under_every_prefix(rows):
    """It equals moving rows to the cloud one by one, in the mean over tied orders."""
    u, edge, cloud = columns(rows)
    if cloud.mean() <= edge.mean():
        assert apgr(u, edge, cloud) is None
    else:
        assert apgr(u, edge, cloud) == pytest.approx(slow_apgr(u, edge, cloud), abs=1e-9)


def test_apgr_closed_forms():
    """One half without information; (1 + right) / 2 for an error detector and a cloud that is always right."""
    edge = np.array([1.0, 1.0, 1.0, 0.0])
    assert apgr(np.ones(4), edge, np.ones(4)) == 0.5
    assert apgr(1 - edge, edge, np.ones(4)) == pytest.approx((1 + 0.75) / 2)
    assert apgr(1 - edge, edge, np.array([1.0, 0, 1, 1])) is None
    assert apgr([1, 0, 0], [0.0, 0, 1], [1.0, 1, 0]) > 0.5


@example([(0, 0.0, 0.0), (0, 0.0, 0.0), (-1, 0.0, 0.0), (-1, 0.0, 0.0), (-1, 0.0, 0.0), (-1, 0.0, 0.5)], 5)
@given(pairs, st.integers(2, 10))
def test_apgr_binned_is_routellms_protocol(rows, bins):
    """It equals the protocol written out: thresholds at bin edges, ">=" but for the last, trapezoids."""
    u, edge, cloud = columns(rows)
    # As RouteLLM spaces them: 0.6000000000000001 in place of 3 / 5 can fall between two rows.
    edges = sorted({float(np.quantile(u, level)) for level in np.linspace(0, 1, bins + 1)})
    if cloud.mean() <= edge.mean() or len(edges) < 2:
        assert apgr_binned(u, edge, cloud, bins=bins) is None
        return
    area, before = 0.0, None
    for at, threshold in enumerate(edges):
        strong = u > threshold if at == len(edges) - 1 else u >= threshold
        point = strong.mean(), np.where(strong, cloud, edge).mean()
        if before is not None:
            area += (before[0] - point[0]) * (before[1] + point[1]) / 2
        before = point
    expected = (area - edge.mean()) / (cloud.mean() - edge.mean())
    assert apgr_binned(u, edge, cloud, bins=bins) == pytest.approx(expected, abs=1e-9)


def test_apgr_binned_is_close_to_the_exact_curve():
    """Ten bins cut corners of the curve, and little else."""
    generator = np.random.default_rng(1)
    u = generator.random(2000)
    edge, cloud = (generator.random(2000) > u).astype(float), np.ones(2000)
    exact, binned = apgr(u, edge, cloud), apgr_binned(u, edge, cloud)
    assert binned == pytest.approx(exact, abs=0.01)
    assert binned < exact


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=12))
def test_isotonic_is_the_least_squares_fit(rows):
    """It never falls, and equals the max-min formula over blocks of distinct x."""
    x, y = columns(rows)
    fit = fit_isotonic(x, y)
    assert (np.diff(fit.values) >= 0).all()
    for i, at in enumerate(fit.at):
        best = max(min(y[(x >= low) & (x <= high)].mean() for high in fit.at[i:]) for low in fit.at[: i + 1])
        assert fit.predict([at])[0] == pytest.approx(best)


def test_ece_by_hand_and_out_of_fold():
    """Gaps are weighted by bin; a calibrated signal has a small error, an uninformative one the base rate."""
    assert ece([0.05, 0.05, 0.95, 0.95], [0, 1, 1, 1]) == pytest.approx((abs(0.1 - 1) + abs(1.9 - 2)) / 4)
    assert ece([1.0], [1]) == 0.0
    generator = np.random.default_rng(0)
    u = generator.random(4000)
    wrong = (generator.random(4000) < u**2).astype(float)
    assert ece(crossfit_probability(-np.log(1 - u), wrong), wrong) < 0.03
    noise = crossfit_probability(generator.random(4000), wrong)
    assert noise.mean() == pytest.approx(wrong.mean(), abs=0.01)
    assert crossfit_probability([1, 2, 3], [0, 1, 1]) is None


def test_crossfit_does_not_see_the_row_it_predicts():
    """Labels that are coin flips stay unpredictable: in the fold they would be explained perfectly."""
    generator = np.random.default_rng(3)
    u, wrong = generator.random(1000), (generator.random(1000) < 0.5).astype(float)
    probability = crossfit_probability(u, wrong)
    brier, of_the_mean = ((probability - wrong) ** 2).mean(), wrong.var()
    assert brier > of_the_mean - 0.005
    assert crossfit_probability(u, wrong).tolist() == probability.tolist()


def test_bootstrap_of_the_mean_and_of_pairs():
    """The interval of a mean is the textbook's; rows stay together; equal seeds give equal intervals."""
    x = np.random.default_rng(0).normal(3, 1, 400)
    low, high = bootstrap_ci(lambda values: float(values.mean()), x)
    half = 1.96 * x.std() / math.sqrt(x.size)
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.02)
    assert bootstrap_ci(lambda a, b: float(np.abs(a - b).max()), x, x, n=50) == (0.0, 0.0)
    assert bootstrap_ci(auroc, x, x > 3.5, n=50, seed=4) == bootstrap_ci(auroc, x, x > 3.5, n=50, seed=4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: auroc([1.0, math.nan], [0, 1]),
        lambda: auroc([1.0, 2.0], [0, 0.5]),
        lambda: auroc([1.0], [0, 1]),
        lambda: auroc([[1.0]], [[1]]),
        lambda: ece([1.5], [1]),
        lambda: apgr_binned([math.inf, 1], [0, 0], [1, 1]),
        lambda: fit_isotonic([], []),
        lambda: fit_isotonic([math.inf], [1]),
        lambda: crossfit_probability([1, 2], [0, 1], folds=1),
        lambda: bootstrap_ci(auroc, [1, 2], [1], n=10),
        lambda: bootstrap_ci(auroc, [1], [1], n=0),
    ],
)
def test_unusable_arrays_are_refused(call):
    """NaN, lengths that differ and values out of range are errors that say what is expected."""
    with pytest.raises(MetricError, match=r"expected|leave out|compare|need"):
        call()
