"""Promises by a judge's grades: kept on people's grades, whatever the judge is like, and refused where its error is not known."""

import math

import numpy as np
import pytest

from confroute.errors import CalibrationError
from confroute.policy.guarantee import Grades, certified_judged
from confroute.stats.prediction_powered import labels_needed, prediction_powered_betting, upper_mean

NAN = float("nan")


def calls(generator, *, n=800, labelled=200, false_alarms=0.02, misses=0.1, shift=0.0, graded=False):
    """Uncertainty u uniform in [0, 1]; an answer is wrong with probability u / 2; the judge errs at these rates.

    Keeping all answers up to t loses t^2 / 4. `shift` adds to the misses where u is low: an error that follows the signal. `graded`
    halves each loss by both.
    """
    u = generator.random(n)
    wrong = generator.random(n) < u / 2
    missed = generator.random(n) < np.clip(misses + shift * (u < 0.5), 0, 1)
    said = np.where(wrong, ~missed, generator.random(n) < false_alarms)
    scale = 0.5 if graded else 1.0
    human = np.where(generator.permutation(n) < labelled, 1 - scale * wrong, NAN)
    return u, Grades(edge=1 - scale * said, cloud=np.ones(n)), Grades(edge=human, cloud=np.ones(n))


def risk(threshold, loss="regret", *, graded=False):
    """The exact loss of a threshold on `calls`."""
    t = min(1.0, threshold)
    return (0.5 if graded else 1.0) * (t / 4 if loss == "selective" else t * t / 4)


JUDGES = {
    "good": {},
    "perfect": {"false_alarms": 0.0, "misses": 0.0},
    "lenient": {"false_alarms": 0.0, "misses": 0.9},
    "lenient where it matters": {"misses": 0.1, "shift": 0.85},
    "blind": {"false_alarms": 0.5, "misses": 0.5},
    "wrong": {"false_alarms": 1.0, "misses": 1.0},
    "graded": {"graded": True},
}


# Fewer thresholds than by default: thousands of draws take a minute.
GRID = np.linspace(0.2, 1.0, 9)


def broken(judge, loss, draws, *, alpha=0.05, delta=0.1):
    """In how many draws the promise does not hold, and how many were made."""
    generator = np.random.default_rng(5)
    graded = JUDGES[judge].get("graded", False)
    count = made = 0
    for _ in range(draws):
        u, judged, human = calls(generator, **JUDGES[judge])
        try:
            t, _ = certified_judged(
                u, judged=judged, human=human, alpha=alpha, delta=delta, loss=loss, grid=GRID
            )
        except CalibrationError:
            continue
        made += 1
        count += risk(t, loss, graded=graded) > alpha
    return count, made


@pytest.mark.parametrize("judge", ["good", "lenient where it matters"])
def test_the_promise_is_about_peoples_grades(judge):
    """In at least 1 - delta of 60 draws, where taking the judge at its word breaks it in most if it is lenient."""
    count, made = broken(judge, "regret", 60)
    assert made > 30
    assert count <= 0.1 * 60 + 2 * math.sqrt(60 * 0.09)
    generator = np.random.default_rng(5)
    trusting = 0
    for _ in range(60):
        u, judged, _ = calls(generator, **JUDGES[judge])
        everything = Grades(edge=judged.edge, cloud=judged.cloud)
        t, _ = certified_judged(u, judged=judged, human=everything, alpha=0.05, delta=0.1, grid=GRID)
        trusting += risk(t) > 0.05
    assert (trusting > 50) == (judge != "good")


@pytest.mark.slow
@pytest.mark.parametrize(("judge", "loss"), [*((judge, "regret") for judge in JUDGES), ("good", "selective")])
def test_the_promise_is_kept_in_two_thousand_draws_whatever_the_judge(judge, loss):
    """Closed-form risk, delta = 0.1: broken in at most 10 % of draws, up to two standard errors."""
    alpha = 0.2 if loss == "selective" else 0.05
    count, made = broken(judge, loss, 2000, alpha=alpha)
    assert made > 0 or judge not in ("good", "perfect")
    assert count <= 0.1 * 2000 + 2 * math.sqrt(2000 * 0.09)


@pytest.mark.slow
def test_a_good_judge_saves_labels():
    """With as many labels, a judge that is never wrong and very many judged rows, more is kept than from the labels alone."""
    from confroute.policy.guarantee import certified

    generator, alone, powered = np.random.default_rng(6), [], []
    for _ in range(20):
        u, judged, human = calls(generator, n=20_000, labelled=600, false_alarms=0.0, misses=0.0)
        by_people = ~np.isnan(human.edge)
        alone.append(certified(u[by_people], human.edge[by_people], alpha=0.1, horizon=math.inf)[0])
        powered.append(certified_judged(u, judged=judged, human=human, alpha=0.1, delta=0.1)[0])
    assert np.mean(powered) > np.mean(alone) + 0.02


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"labelled": 0},
            "0 of 800 judged rows have .*the judge's error is not known.* at least 69 are needed",
        ),
        ({"labelled": 40}, "40 of 800 .* at least 69 "),
        ({"misses": 1.0, "alpha": 0.001, "labelled": 800}, "at least 3"),
        ({"delta": None}, "delta has to be a number"),
        ({"loss": "net"}, "only regret, error and selective"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"outside": True}, "outside \\[0, 1\\]"),
        ({"unjudged": True}, "the judged edge qualities"),
        (
            {"all_wrong": True},
            "people graded 200 rows, which lose 0.1[0-9.]* by their grades and 0 by the judge's",
        ),
    ],
)
def test_what_cannot_be_promised_is_refused_with_the_numbers(change, words):
    """No or too few labels, levels and losses that are not offered, columns that are no grades."""
    settings = {"alpha": 0.05, "delta": 0.1, "loss": "regret"}
    settings |= {name: change[name] for name in settings if name in change}
    draw = {name: change[name] for name in ("labelled", "misses") if name in change}
    u, judged, human = calls(np.random.default_rng(0), **draw)
    edge, people = judged.edge.copy(), human.edge.copy()
    if "outside" in change:
        edge[3] = 1.5
    if "unjudged" in change:
        edge[3] = NAN
    if "all_wrong" in change:
        edge[:], people[~np.isnan(people)] = 1.0, 0.0
        settings |= {"grid": [float(np.sort(u)[119])]}
    with pytest.raises(CalibrationError, match=words):
        certified_judged(
            u,
            judged=Grades(edge=edge, cloud=judged.cloud),
            human=Grades(edge=people, cloud=human.cloud),
            **settings,
        )


def test_the_certificate_names_both_numbers_of_rows():
    """Method, rows and labels, in the certificate and in its words; the same rows in another order give the same promise."""
    u, judged, human = calls(np.random.default_rng(0))
    value, promise = certified_judged(u, judged=judged, human=human, alpha=0.1, delta=0.1, date="2026-01-02")
    assert (promise.method, promise.n, promise.labelled, promise.horizon) == (
        "ltt-prediction-powered",
        800,
        200,
        None,
    )
    assert "ltt-prediction-powered on 800 calls graded by a judge, 200 of them by people too" in promise.words
    assert promise.to_dict()["labelled"] == 200
    place = np.random.default_rng(1).permutation(800)
    again = [Grades(edge=one.edge[place], cloud=one.cloud[place]) for one in (judged, human)]
    other, _ = certified_judged(u[place], judged=again[0], human=again[1], alpha=0.1, delta=0.1)
    assert other == value


@pytest.mark.parametrize(("k", "n", "level"), [(0, 30, 0.1), (7, 50, 0.01), (49, 50, 0.05)])
def test_the_judges_mean_is_bounded_as_by_scipy(k, n, level):
    """Clopper and Pearson's interval, by another's beta quantiles."""
    stats = pytest.importorskip("scipy.stats")
    values = np.array([1.0] * k + [0.0] * (n - k))
    assert upper_mean(values, level) == pytest.approx(stats.beta.ppf(1 - level, k + 1, n - k), abs=1e-7)
    assert upper_mean(np.ones(9), level) == 1.0
    assert upper_mean(values * 0.5, level) > values.mean() * 0.5


@pytest.mark.parametrize("grid", [None, np.linspace(0.01, 1.0, 100)])
def test_the_first_threshold_for_kept_answers_holds_enough_labels(grid):
    """The 30 most certain rows hold 7 labels, which prove nothing, and the sequence of tests would end there."""
    generator = np.random.default_rng(0)
    u = generator.random(1000)
    right = (generator.random(1000) > np.where(u < 0.7, 0.02, 0.5)).astype(float)
    graded = generator.random(1000) < 0.25
    value, promise = certified_judged(
        u,
        judged=Grades(edge=right, cloud=np.ones(1000)),
        human=Grades(edge=np.where(graded, right, NAN), cloud=np.ones(1000)),
        alpha=0.1,
        delta=0.1,
        loss="selective",
        grid=grid,
    )
    assert (u[graded] <= value).sum() >= labels_needed(0.1, 0.07)
    assert promise.observed <= 0.1


def test_no_grade_makes_a_bet_go_bankrupt():
    """Of the worst rows in every order the capital stays above 0, so that the p-value is a number."""
    for human, judged in [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]:
        for mean in (0.0, 0.5, 1.0):
            p = prediction_powered_betting(
                np.r_[np.array([0.0, 1.0] * 5), np.full(300, human)],
                np.r_[np.array([0.0, 1.0] * 5), np.full(300, judged)],
                judged_mean=mean,
                alpha=0.05,
                delta=0.1,
            )
            assert 0 < p <= 1
    needed = labels_needed(0.05, 0.1)
    nothing = np.zeros(needed)
    assert prediction_powered_betting(nothing, nothing, judged_mean=0.0, alpha=0.05, delta=0.1) <= 0.1
