"""Similarity-weighted ranking gives the same numbers as the regression over all battles that it replaces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from confroute.errors import CalibrationError
from confroute.heads import SimilarityRanking, tiers_of
from confroute.heads.ranking import fit_ratings, rating_gap_deviation

TIERS, EDGE, CLOUD = 5, 1, 4


def battles(n=2000, seed=0):
    """Battles between five tiers, a fifth of them within one."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 8)) + 1
    first, second = generator.integers(0, TIERS, (2, n))
    chance = 1 / (1 + np.exp(-0.4 * (first - second)))
    outcome = np.where(generator.random(n) < 0.2, 0.5, generator.random(n) < chance)
    return x, first, second, outcome.astype(float)


def by_regression(x, first, second, outcome, query, *, bug):
    """RouteLLM's computation: one row per battle, doubled so that a tie is a win and a loss, weighted logistic regression."""
    similarity = x @ query / (np.linalg.norm(x, axis=1) * np.linalg.norm(query))
    weight = np.tile(10 * 10 ** (similarity / similarity.max()), 2)
    n = len(x)
    rows = np.zeros((n, TIERS))
    rows[np.arange(n), first] = np.log(10)
    if bug:
        rows[np.arange(n), second] = -np.log(10)
    else:
        rows[np.arange(n), second] -= np.log(10)
    rows = np.tile(rows, (2, 1))
    won = np.concatenate([outcome >= 0.5, outcome > 0.5]).astype(float)
    ratings = np.zeros(TIERS)
    for _ in range(30):
        chance = 1 / (1 + np.exp(-rows @ ratings))
        hessian = (rows.T * (weight * chance * (1 - chance))) @ rows
        ratings = ratings + np.linalg.pinv(hessian) @ (rows.T @ (weight * (won - chance)))
    return 1 / (1 + 10 ** (ratings[EDGE] - ratings[CLOUD]))


@pytest.mark.parametrize("bug", [True, False])
def test_sufficient_statistics_give_the_regression_over_all_battles(bug):
    """Win rates agree to 1e-6 with the regression, with RouteLLM's overwritten battles and without."""
    x, first, second, outcome = battles()
    head = SimilarityRanking.of_battles(
        x, first, second, outcome, models=TIERS, edge=EDGE, cloud=CLOUD, same_tier_bug=bug
    )
    for query in np.random.default_rng(1).normal(size=(5, 8)) + 1:
        expected = by_regression(x, first, second, outcome, query, bug=bug)
        assert head.estimate(query).cloud_wins[0] == pytest.approx(expected, abs=1e-6)


def test_the_bug_changes_win_rates():
    """The two rankings differ, so the test above does distinguish them."""
    x, first, second, outcome = battles()
    fixed, bugged = (
        SimilarityRanking.of_battles(
            x, first, second, outcome, models=TIERS, edge=EDGE, cloud=CLOUD, same_tier_bug=bug
        )
        .estimate(x[0])
        .cloud_wins[0]
        for bug in (False, True)
    )
    assert abs(fixed - bugged) > 1e-3


def test_a_pair_that_was_always_won_converges():
    """Separable battles give a chance near 1, not an overflow."""
    x = np.random.default_rng(0).normal(size=(40, 4))
    first, second = np.array([0, 1] * 20), np.array([1, 2] * 20)
    outcome = np.array([0.0, 1.0] * 20)
    head = SimilarityRanking.of_battles(x, first, second, outcome, models=3, edge=0, cloud=1)
    assert 0.99 < head.estimate(x[0]).cloud_wins[0] <= 1


@given(total=st.floats(1, 1e6), part=st.floats(0, 1), precision=st.floats(0.01, 10))
def test_a_single_pair_has_a_closed_form(total, part, precision):
    """Without a prior the chance is the share won; with one, Newton's method in one variable finds the deviation."""
    won, lost = total * part, total * (1 - part)
    design, gap = np.array([[-1.0, 1.0]]), np.array([-1.0, 1.0])
    sums = np.full((2, 1), won), np.full((2, 1), lost)
    ratings, hessian = fit_ratings(*sums, design, prior_precision=np.array([0.0, precision]))
    assert 1 / (1 + np.exp(-ratings[0] @ gap)) == pytest.approx(won / (won + lost), abs=1e-6)
    expected = np.sqrt(gap @ np.linalg.solve(hessian[1], gap))
    assert rating_gap_deviation(won, lost, prior_precision=precision) == pytest.approx(expected, abs=1e-6)


@given(
    st.integers(8, 60).flatmap(
        lambda n: st.tuples(
            arrays(np.float64, (n, 4), elements=st.floats(-10, 10)),
            arrays(np.float64, n, elements=st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)),
        )
    ),
    arrays(np.float64, (3, 4), elements=st.floats(-10, 10)),
    st.sampled_from([(2, 0, 1), (2, 1, 0), (4, 2, 1)]),
)
def test_the_closed_form_of_one_pair_agrees_with_the_general_ranking(training, queries, models):
    """Which of two models comes first decides which computation runs, and changes neither number."""
    x, y = training
    y[:2] = 0, 1
    count, edge, cloud = models
    clouds, edges = np.full(len(y), cloud), np.full(len(y), edge)
    settings = {"models": count, "edge": edge, "cloud": cloud}
    closed = SimilarityRanking.of_battles(x, clouds, edges, y, **settings).estimate(queries)
    general = SimilarityRanking.of_battles(x, edges, clouds, 1 - y, **settings).estimate(queries)
    assert closed.cloud_wins == pytest.approx(general.cloud_wins, abs=1e-6)
    assert closed.spread == pytest.approx(general.spread, abs=1e-6)


def test_models_out_of_range_are_refused():
    """A battle of a model that does not exist raises."""
    x, first, second, outcome = battles(n=20)
    with pytest.raises(CalibrationError, match="from 0 to 1"):
        SimilarityRanking.of_battles(x, first, second, outcome, models=2, edge=0, cloud=1)


def test_edge_and_cloud_must_differ():
    """The same model as edge and cloud raises: there would be no gap between two ratings."""
    x, first, second, outcome = battles(n=20)
    with pytest.raises(CalibrationError, match="both model 3"):
        SimilarityRanking.of_battles(x, first, second, outcome, models=TIERS, edge=3, cloud=3)


@pytest.mark.parametrize("swapped", [[0], [7], [0, 7], []])
def test_doubt_by_hand(swapped):
    """Four of eight equal prompts won: a logit of 0 with precision 1 / 8 from the prior of a gap and 8 / 4 from the battles.

    Battles recorded with the edge first, which belong to another pair, give the same result.
    """
    first, second = np.ones(8, dtype=int), np.zeros(8, dtype=int)
    outcome = np.array([1.0, 0.0] * 4)
    first[swapped], second[swapped] = 0, 1
    outcome[swapped] = 1 - outcome[swapped]
    for edge, cloud, wins in ((0, 1, outcome), (1, 0, 1 - outcome)):
        head = SimilarityRanking.of_battles(
            np.ones((8, 2)), first, second, wins, models=2, edge=edge, cloud=cloud
        )
        estimate = head.estimate([1.0, 1.0])
        assert estimate.cloud_wins == pytest.approx([0.5])
        assert estimate.spread == pytest.approx([0.25 / 2.125**0.5], rel=1e-5)
        # Far from all of them the prior's own spread, 8**0.5 / 4, is more than any probability can have.
        assert head.estimate([1.0, -1.0]).spread == [0.5]


def test_one_battle_of_another_pair_counts():
    """A battle that the edge won as the first of its pair counts as one that the cloud lost, wherever it is in the order."""
    outcome = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    for edge, cloud in ((0, 1), (1, 0)):
        a, b = np.full(8, cloud), np.full(8, edge)
        plain = SimilarityRanking.of_battles(np.ones((8, 2)), a, b, outcome, models=2, edge=edge, cloud=cloud)
        assert plain.estimate([1.0, 1.0]).cloud_wins == pytest.approx([0.75])
        a[3], b[3], swapped = edge, cloud, outcome.copy()
        swapped[3] = 1.0
        other = SimilarityRanking.of_battles(np.ones((8, 2)), a, b, swapped, models=2, edge=edge, cloud=cloud)
        assert other.estimate([1.0, 1.0]).cloud_wins == pytest.approx([0.75])


def test_one_tier_holds_all_models():
    """One is the smallest number of tiers; zero is refused."""
    assert tiers_of([3.0, 1.0, 2.0], 1) == [0, 0, 0]
    with pytest.raises(CalibrationError, match="more models than tiers"):
        tiers_of([3.0, 1.0, 2.0], 0)


def test_tiers_are_the_best_partition():
    """Dynamic programming finds the split that trying all of them finds."""
    ratings = np.random.default_rng(3).normal(1000, 100, 9)
    order = np.sort(ratings)
    best = min(
        ((i, j) for i in range(1, 8) for j in range(i + 1, 9)),
        key=lambda cut: sum(part.var() for part in np.split(order, cut)),
    )
    expected = [int(np.searchsorted(order[[*best]], rating, side="right")) for rating in ratings]
    assert tiers_of(ratings, 3) == expected
    with pytest.raises(CalibrationError, match="more models than tiers"):
        tiers_of([1.0, 2.0], 2)
