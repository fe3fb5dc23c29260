"""Verdicts on promises: exact where losses are 0 or 1, bounds where they are graded, and no more false alarms than stated."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from confroute import Cascade, Gate, Threshold
from confroute.certificate import Certificate
from confroute.fitting import apply, verdict_of
from confroute.policy import GroupThreshold
from confroute.recording import Row, Side
from confroute.signals import Recorded

PROMISE = Certificate(
    loss="regret",
    alpha=0.05,
    delta=0.1,
    n=500,
    method="ltt-binomial",
    observed=0.04,
    date="2026-01-01",
    data_hash="0",
)


@pytest.mark.parametrize(("lost", "n"), [(0, 20), (1, 60), (12, 400), (10, 100), (46, 100), (500, 500)])
def test_losses_of_0_and_1_are_tested_exactly(lost, n):
    """Both p-values are binomial tails, to many places even where they are tiny."""
    found = verdict_of(PROMISE, [1.0] * lost + [0.0] * (n - lost))
    assert found.p_broken == pytest.approx(binom.sf(lost - 1, n, 0.05), rel=1e-9)
    assert found.p_held == pytest.approx(binom.cdf(lost, n, 0.05), rel=1e-9)
    assert found.loss == lost / n


@pytest.mark.parametrize(
    ("lost", "n", "outcome", "words"),
    [
        (12, 400, "held", "regret 0.030, promised 0.05 at 90%: held (n = 400, p = 0.036)"),
        (46, 100, "broken", "broken (n = 100"),
        (3, 50, "unknown", "cannot be told from n = 50 (not below it, within chance, p = 0.46"),
        (
            1,
            50,
            "unknown",
            "cannot be told from n = 50 (below it as measured, p = 0.28; about 87 calls would prove it",
        ),
    ],
)
def test_the_three_outcomes(lost, n, outcome, words):
    """In words that hold the numbers."""
    found = verdict_of(PROMISE, [1.0] * lost + [0.0] * (n - lost))
    assert found.outcome == outcome
    assert words in found.words
    assert found.to_dict()["outcome"] == outcome


def test_what_is_said_of_a_near_miss():
    """No number of calls that are there already; a confidence is not rounded to certainty."""
    near = verdict_of(replace(PROMISE, delta=0.005), [0.0] * 102)
    assert near.outcome == "unknown"
    assert "promised 0.05 at 99.5%: cannot be told from n = 102" in near.words
    graded = verdict_of(PROMISE, [0.01, 0.0] * 20)
    assert graded.outcome == "unknown"
    assert "a few more calls would prove it" in graded.words


def bernoulli(generator, n, mean):
    """0 or 1."""
    return (generator.random(n) < mean).astype(float)


def beta(generator, n, mean):
    """Anything between."""
    return generator.beta(0.5, 0.5 * (1 - mean) / mean, size=n)


def elevenths(generator, n, mean):
    """Eleven grades."""
    return generator.binomial(10, mean, size=n) / 10


def rarely_half(generator, n, mean):
    """Few halves, else nothing."""
    return 0.5 * (generator.random(n) < 2 * mean)


def gains_too(generator, n, mean):
    """In [-1, 1]: as often a gain of one as not."""
    return np.where(generator.random(n) < (1 + mean) / 2, 1.0, -1.0)


@pytest.mark.parametrize(
    ("draw", "loss"),
    [
        (bernoulli, "regret"),
        (beta, "regret"),
        (elevenths, "error"),
        (rarely_half, "regret"),
        (gains_too, "net"),
    ],
)
@pytest.mark.parametrize("runs", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_false_verdicts_are_at_most_as_many_as_stated(draw, loss, runs):
    """With a mean of exactly the bound, "broken" is false, and just above it "held" is: 1 % and 10 % at most."""
    generator = np.random.default_rng(4)
    promise = replace(PROMISE, loss=loss)
    broken = held = 0
    for _ in range(runs):
        found = verdict_of(promise, draw(generator, 300, 0.05))
        broken += found.outcome == "broken"
        held += found.outcome == "held"
    assert broken <= 0.01 * runs + 2.5 * math.sqrt(runs * 0.01 * 0.99)
    assert held <= 0.1 * runs + 2.5 * math.sqrt(runs * 0.1 * 0.9)


@pytest.mark.parametrize("draw", [bernoulli, beta, elevenths, rarely_half])
def test_true_verdicts_are_found(draw):
    """Three times the bound is broken and a fifth of it held, nearly always, on 300 calls."""
    generator = np.random.default_rng(5)
    broken = [verdict_of(PROMISE, draw(generator, 300, 0.15)).outcome == "broken" for _ in range(40)]
    held = [verdict_of(PROMISE, draw(generator, 300, 0.01)).outcome == "held" for _ in range(40)]
    assert min(sum(broken), sum(held)) >= 36


def test_a_promise_on_average_is_never_called_broken():
    """Conformal risk control promises the mean over calibrations; one of them may lie above it."""
    found = verdict_of(replace(PROMISE, delta=None, method="crc"), [1.0] * 46 + [0.0] * 54)
    assert found.outcome == "unknown"
    assert "mean over many calibrations" in found.words


def row(at, u, edge, cloud, **extra):
    """A recorded call with one recorded signal."""
    answered = None if cloud is None else Side(text="yes", quality=cloud)
    return Row(
        id=str(at), edge=Side(text="no", quality=edge), cloud=answered, signals={"mine": u}, extra=extra
    )


def promising(loss="regret", value=0.5, **changes):
    """A policy that keeps what has an uncertainty of at most `value`, with a promise."""
    threshold = Threshold(value=value, certificate=replace(PROMISE, loss=loss, **changes))
    return Cascade(gates=(Gate(signal=Recorded(column="mine"), threshold=threshold),))


@pytest.mark.parametrize(("loss", "lost", "n"), [("regret", 0.2, 100), ("error", 0.25, 100)])
def test_the_losses_are_those_of_the_promise(loss, lost, n):
    """Kept and wrong where the cloud is right 20 of 100, and where it is not 5 more; 10 wrong drafts go to the cloud."""
    rows = [row(at, 0.1, float(at >= 25), float(at >= 5)) for at in range(90)]
    rows += [row(at, 0.9, 0.0, 1.0) for at in range(90, 100)]
    (found,) = apply(promising(loss), rows).verdicts
    assert (found.loss, found.n, found.outcome) == (lost, n, "broken")
    (kept,) = apply(promising("selective"), rows).verdicts
    assert (kept.loss, kept.n) == (pytest.approx(25 / 90), 90)
    (net,) = apply(promising("net"), rows).verdicts
    assert net.loss == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("rows", "policy", "why"),
    [
        ([row(at, 0.1, 1.0, None) for at in range(20)], promising(), "cloud's answers"),
        ([row(at, 0.1, None, None) for at in range(20)], promising("error"), "20 of 20 kept answers"),
        ([row(at, 0.9, 1.0, 1.0) for at in range(20)], promising("selective"), "no call was kept"),
    ],
)
def test_what_cannot_be_measured_is_said(rows, policy, why):
    """Neither held nor broken."""
    (found,) = apply(policy, rows).verdicts
    assert (found.outcome, found.loss) == ("unknown", None)
    assert why in found.words
    assert found.to_dict()["loss"] is None


def test_each_group_has_its_own_verdict():
    """The level of false alarms is shared, and a call counts for the promise of its own threshold alone."""
    group = GroupThreshold(
        tag="vip", threshold=Threshold(value=0.5, certificate=replace(PROMISE, group="vip"))
    )
    gate = replace(promising().gates[0], by_tag=(group,))
    rows = [row(at, 0.1, 1.0, 1.0) for at in range(60)]
    rows += [row(at, 0.1, 0.0, 1.0, tags=["vip"]) for at in range(60, 100)]
    everyone, vip = apply(Cascade(gates=(gate,)), rows).verdicts
    assert (everyone.loss, everyone.n, everyone.outcome) == (0.0, 60, "held")
    assert (vip.loss, vip.n, vip.outcome) == (1.0, 40, "broken")
    assert everyone.false_alarm == vip.false_alarm == 0.005
    assert "of calls tagged vip" in vip.words
