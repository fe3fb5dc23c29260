"""Our own statistics beside scipy's and scikit-learn's, on random cases."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from confroute.stats.isotonic import fit_isotonic
from confroute.stats.logistic import ridge_logistic
from confroute.stats.metrics import MetricError, auroc, auroc_cis, bootstrap_ci, ece, risk_coverage
from confroute.stats.tails import (
    binomial_cdf,
    hoeffding_bentkus,
    hypergeometric_cdf,
    most_failures,
    rows_needed,
)

# Sums of logarithms of factorials lose about a digit per decade of n.
CLOSE = {"rel": 1e-8, "abs": 1e-14}
LEVELS = st.floats(0.01, 0.5)
# Sixteenths tie often; no multiple of 1/10 but 0, 1/2 and 1 is one, so that no two bins' edges are a matter of rounding.
SIXTEENTHS = st.integers(0, 16).map(lambda k: k / 16)
# No two differ by so little that scikit-learn takes them for equal.
HUNDREDTHS = st.integers(-(10**8), 10**8).map(lambda k: k / 100)
VALUES = st.one_of(SIXTEENTHS, HUNDREDTHS)


@st.composite
def ranked(draw, values=VALUES):
    """Values and flags, both flags present."""
    rows = draw(st.lists(st.tuples(values, st.booleans()), max_size=60))
    rows += [(draw(values), True), (draw(values), False)]
    return np.array([value for value, _ in rows]), np.array([flag for _, flag in rows])


def upper_end(failures, n, delta):
    """The one-sided Clopper-Pearson bound."""
    found = stats.binomtest(failures, n).proportion_ci(confidence_level=1 - 2 * delta, method="exact")
    return found.high


@given(st.integers(1, 5000), st.data())
def test_binomial_tails(n, data):
    """Over all counts, the impossible ones among them."""
    k, p = data.draw(st.integers(-2, n + 2)), data.draw(st.floats(1e-6, 1 - 1e-6))
    assert binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), **CLOSE)


@given(st.integers(0, 2000), st.integers(1, 2000), st.data())
def test_hypergeometric_tails(marked, unmarked, data):
    """Likewise, for any share of marked items."""
    drawn = data.draw(st.integers(0, marked + unmarked))
    k = data.draw(st.integers(-2, drawn + 2))
    expected = stats.hypergeom.cdf(k, marked + unmarked, marked, drawn)
    assert hypergeometric_cdf(k, marked, unmarked, drawn) == pytest.approx(expected, **CLOSE)


@given(st.integers(1, 3000), LEVELS, LEVELS)
def test_failures_that_a_rate_allows_are_clopper_pearsons(n, alpha, delta):
    """The last count whose upper bound is at most the rate."""
    k = most_failures(n, alpha, delta)
    assert k == -1 or upper_end(k, n, delta) <= alpha * (1 + 1e-9)
    assert upper_end(k + 1, n, delta) > alpha * (1 - 1e-9)


@given(st.integers(1, 500), st.integers(1, 500), LEVELS, LEVELS)
def test_failures_allowed_over_a_horizon(n, horizon, alpha, delta):
    """The last count at which that many of the failures, in random order, come before the calls that follow."""
    k = most_failures(n, alpha, delta, horizon=horizon)
    to_come = math.floor(alpha * horizon + 1e-9)

    def tail(failures):
        among = failures + to_come + 1
        return 0.0 if among > n + horizon else stats.hypergeom.cdf(failures, n + horizon, n, among)

    assert k == -1 or tail(k) <= delta * (1 + 1e-9)
    assert k == n or tail(k + 1) > delta * (1 - 1e-9)


@given(LEVELS, LEVELS)
def test_rows_needed_where_none_fails(alpha, delta):
    """With one row fewer the upper bound is above the rate."""
    n = rows_needed(alpha, delta, horizon=False)
    assert upper_end(0, n, delta) <= alpha * (1 + 1e-9)
    assert n == 1 or upper_end(0, n - 1, delta) > alpha * (1 - 1e-9)


@given(st.integers(1, 2000), st.data(), LEVELS)
def test_hoeffding_bentkus_p_values(n, data, alpha):
    """The smaller of both bounds, by scipy's relative entropy and binomial."""
    failures = data.draw(st.integers(0, n))
    mean = failures / n
    entropy = special.rel_entr(mean, alpha) + special.rel_entr(1 - mean, 1 - alpha)
    bounds = (math.exp(-n * entropy), math.e * stats.binom.cdf(failures, n, alpha))
    expected = 1.0 if mean >= alpha else min(1.0, *bounds)
    assert hoeffding_bentkus(mean, n, alpha) == pytest.approx(expected, rel=1e-7, abs=1e-14)


@given(ranked())
def test_isotonic_regression(rows):
    """At the rows, between them and beyond them; tied rows are pooled."""
    x, y = rows
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x, y.astype(float))
    at = np.concatenate([x, (x[1:] + x[:-1]) / 2, [x.min() - 1, x.max() + 1]])
    assert fit_isotonic(x, y).predict(at) == pytest.approx(theirs.predict(at), abs=1e-9)


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 60), st.floats(0.01, 100.0), st.booleans()
)
@example(0, 2, 36, 0.015625, False)  # the intercept is hardly bound by two rows
def test_ridge_logistic_regression(seed, n, columns, penalty, graded):
    """Weights and intercept, for few and for many columns, for flags and for grades between them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, columns))
    y = generator.uniform(0.05, 0.95, n) if graded else (np.arange(n) % 2).astype(float)
    # A grade is a row of each class, weighted.
    both, flags, weights = np.concatenate([x, x]), np.repeat([1, 0], n), np.concatenate([y, 1 - y])
    theirs = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    theirs.fit(both, flags, sample_weight=weights)
    # Theirs leaves the intercept quite free, ours nearly.
    intercept, found = ridge_logistic(x, y, penalty=penalty)
    assert intercept == pytest.approx(theirs.intercept_[0], rel=3e-3, abs=3e-3)
    assert found == pytest.approx(theirs.coef_[0], rel=1e-3, abs=1e-3)


@given(ranked())
def test_area_under_the_roc_curve(rows):
    """Ties count one half."""
    uncertainty, wrong = rows
    assert auroc(uncertainty, wrong) == pytest.approx(roc_auc_score(wrong, uncertainty), abs=1e-12)


@given(ranked())
def test_risk_is_what_precision_lacks(rows):
    """Keeping the surest rows selects right answers: risk at a threshold is 1 less precision, tied rows kept together."""
    uncertainty, right = rows
    precision, _, limits = precision_recall_curve(right, -uncertainty)
    kept = np.array([(-uncertainty >= limit).sum() for limit in limits])
    risk = risk_coverage(uncertainty, right.astype(float)).risk
    assert risk[kept - 1] == pytest.approx(1 - precision[:-1], abs=1e-12)


@given(st.permutations(range(30)), st.lists(st.booleans(), min_size=30, max_size=30).filter(any))
def test_average_precision_from_the_risk_curve(order, right):
    """Without ties, the mean of 1 less risk over the right answers kept, in order."""
    uncertainty, right = np.array(order, dtype=float), np.array(right)
    risk = risk_coverage(uncertainty, right.astype(float)).risk
    found = float((1 - risk)[right[np.argsort(uncertainty)]].mean())
    assert found == pytest.approx(average_precision_score(right, -uncertainty), abs=1e-12)


@given(ranked(values=SIXTEENTHS), st.integers(1, 20))
def test_calibration_error_by_bins(rows, bins):
    """Each bin holds its lower edge; the last holds both."""
    probability, wrong = rows
    gaps = stats.binned_statistic(probability, probability - wrong, "sum", bins=bins, range=(0, 1)).statistic
    expected = np.abs(gaps).sum() / probability.size
    assert ece(probability, wrong, bins=bins) == pytest.approx(expected, abs=1e-12)


@given(ranked(), st.integers(0, 1000), st.floats(0.5, 0.99))
def test_bootstrap_intervals(rows, seed, level):
    """Of one column and of two drawn together: equal draws give equal percentiles."""
    values, flags = rows
    columns = (values, flags.astype(float))
    settings = {"n_resamples": 50, "batch": 1, "vectorized": False, "method": "percentile"}

    def mean(x):
        return float(x.mean())

    def product(x, y):
        return float((x * y).mean())

    for statistic, of in ((mean, columns[:1]), (product, columns)):
        theirs = stats.bootstrap(
            of,
            statistic,
            confidence_level=level,
            paired=len(of) > 1,
            rng=np.random.default_rng(seed),
            **settings,
        ).confidence_interval
        found = bootstrap_ci(statistic, *of, n=50, seed=seed, level=level)
        assert found == pytest.approx((theirs.low, theirs.high), rel=1e-12)


@given(st.lists(ranked(), min_size=1, max_size=3), st.integers(0, 2**32 - 1), LEVELS)
def test_auroc_intervals_are_those_of_the_same_resamples(signals, seed, alpha):
    """One sort and counts of draws give what a sort of every resample does, bit for bit; signals on equally many rows share draws."""
    rows = min(values.size for values, _ in signals)
    cut = [
        (np.append(values[-2:], values[: rows - 2]), np.append([1, 0], flags[: rows - 2]))
        for values, flags in signals
    ]
    found = auroc_cis([u for u, _ in cut], [w for _, w in cut], n=60, seed=seed, level=1 - alpha)
    assert found == [bootstrap_ci(sorted_auroc, u, w, n=60, seed=seed, level=1 - alpha) for u, w in cut]


def sorted_auroc(u, w):
    """The Mann-Whitney statistic by the ranks of all rows."""
    right, wrong = int((w == 0).sum()), int((w == 1).sum())
    if not right or not wrong:
        return None
    above = int((2 * stats.rankdata(u)[w == 1]).sum()) / 2 - wrong * (wrong + 1) / 2
    return above / (right * wrong)


def test_auroc_intervals_of_nothing():
    """No signal, no row, or no wrong answer; and what cannot be told apart is refused."""
    assert auroc_cis([], []) == []
    assert auroc_cis([[]], [[]]) == [None]
    assert auroc_cis([[1, 2, 3]], [[0, 0, 0]], n=20) == [None]
    for bad in (([[1, 2], [1]], [[1, 0], [1]]), ([[1, 2]], [[1, 0.5]])):
        with pytest.raises(MetricError):
            auroc_cis(*bad, n=20)
    with pytest.raises(MetricError, match="n is 0"):
        auroc_cis([[1, 2]], [[1, 0]], n=0)
