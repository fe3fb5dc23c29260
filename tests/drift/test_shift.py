"""Calls that are not like the recorded ones: told by the uncertainties alone, with no more false alarms than stated."""

import math

import numpy as np
import pytest

from confroute import Cascade, Threshold, TokenLogprob
from confroute.decision import Decision, Measurement, Step
from confroute.drift import like_recorded, measured_by
from confroute.errors import PolicyError
from confroute.policy import Provenance
from confroute.policy.provenance import RecordedModel, RecordedUncertainty


def fitted(recorded):
    """A policy that holds the distribution of these uncertainties."""
    provenance = Provenance(
        edge=RecordedModel(),
        cloud=None,
        kind=None,
        n=len(recorded),
        date="2026-01-01",
        data_hash="0",
        version="1",
        uncertainty=(RecordedUncertainty.of("token_logprob", recorded),),
    )
    gates = Cascade.of(TokenLogprob(), Threshold(value=0.3)).gates
    return Cascade(gates=gates, provenance=provenance)


def continuous(generator, n):
    """No two values are alike."""
    return generator.gamma(2.0, size=n)


def elevenths(generator, n):
    """Eleven values, as of ten samples."""
    return generator.binomial(10, 0.3, size=n) / 10


def often_unmeasured(generator, n):
    """Three of ten are not measured."""
    return np.where(generator.random(n) < 0.3, math.nan, generator.normal(size=n))


def mostly_zero(generator, n):
    """A mass at the least value."""
    return np.where(generator.random(n) < 0.7, 0.0, generator.random(n))


DRAWS = [continuous, elevenths, often_unmeasured, mostly_zero]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("runs", [100, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("recorded", "n"), [(60, 100), (500, 50), (500, 500)])
def test_calls_like_the_recorded_ones_raise_at_most_the_stated_false_alarms(draw, runs, recorded, n):
    """At a level of 5 %, with the scatter of so many runs: for few rows, many, ties, and signals that are not measured."""
    generator = np.random.default_rng(1)
    alarms = sum(
        not like_recorded(
            fitted(draw(generator, recorded)), draw(generator, n), false_alarm=0.05
        ).like_recorded
        for _ in range(runs)
    )
    assert alarms <= 0.05 * runs + 2.5 * math.sqrt(runs * 0.05 * 0.95)


@pytest.mark.parametrize("n", [50, 100])
@pytest.mark.parametrize("draw", DRAWS)
def test_a_shift_is_told(draw, n):
    """By one unit of the signal, or to calls on which it is measured less often, nine times of ten or more."""
    generator = np.random.default_rng(2)
    told = {"moved": 0, "unmeasured": 0}
    for _ in range(50):
        policy, fresh = fitted(draw(generator, 400)), draw(generator, n)
        told["moved"] += not like_recorded(policy, fresh + 1.0).like_recorded
        gone = np.where(generator.random(n) < 0.7, math.nan, fresh)
        told["unmeasured"] += not like_recorded(policy, gone).like_recorded
    assert min(told.values()) >= 45


def test_a_signal_that_is_measured_on_no_call_is_said():
    """Also in words; None and NaN are the same."""
    policy = fitted(np.linspace(0, 1, 100).tolist())
    shift = like_recorded(policy, [None] * 30)
    assert shift == like_recorded(policy, [math.nan] * 30)
    assert not shift.like_recorded
    assert shift.measured == 0.0
    assert "measured on none of them" in shift.words
    assert "not like the recorded ones" in shift.words
    assert "broken" not in shift.words


def test_a_policy_whose_signal_was_never_recorded_notices_that_it_is_measured_now():
    """Its distribution has no values at all."""
    policy = fitted([None] * 50)
    assert like_recorded(policy, [None] * 50).distance == 0.0
    assert like_recorded(policy, [0.5] * 50).distance == 1.0


@pytest.mark.parametrize(("recorded", "n"), [(300, 20_000), (5000, 10_000)])
def test_many_calls_that_are_all_different_are_told(recorded, n):
    """The more calls there are, the surer it is."""
    generator = np.random.default_rng(0)
    policy = fitted(generator.random(recorded))
    assert not like_recorded(policy, 0.4 + generator.random(n)).like_recorded
    assert like_recorded(policy, generator.random(n)).like_recorded


def test_without_a_distribution_or_calls_there_is_nothing_to_tell():
    """Neither a yes nor a no."""
    assert like_recorded(Cascade.of(TokenLogprob(), 0.3), [0.1] * 50) is None
    assert like_recorded(fitted([0.1, 0.2]), []) is None
    with pytest.raises(PolicyError, match="false_alarm"):
        like_recorded(fitted([0.1, 0.2]), [0.1], false_alarm=1.0)


def test_the_kept_quantiles_never_make_a_distance_larger():
    """Against the distance of the whole samples."""
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(3)
    for draw in (continuous, elevenths, mostly_zero):
        recorded, fresh = np.round(draw(generator, 1000), 6), np.round(draw(generator, 200), 6)
        kept = RecordedUncertainty.of("mine", recorded)
        whole = ks_2samp(recorded, fresh).statistic
        assert whole - 0.011 <= kept.distance(fresh) <= whole + 1e-12
        assert len(kept.values) <= 100


def decision(kind, uncertainty=None):
    """One with a step of a kind, and a measurement or none."""
    found = (
        {}
        if uncertainty is None
        else {"token_logprob": Measurement(signal="token_logprob", uncertainty=uncertainty)}
    )
    return Decision(route="edge", stage="draft", reason="", signals=found, steps=(Step(kind=kind),))


def test_calls_without_a_draft_are_left_out():
    """Those that a rule or the caller sent somewhere say nothing of the drafts."""
    policy = fitted([0.1, 0.2])
    decisions = [decision("draft", 0.1), decision("final"), decision("draft")]
    assert measured_by(policy, decisions) == [0.1, None]


def test_decisions_of_a_log_are_the_same_numbers():
    """A log keeps six places: two thirds there and in memory must not count as different."""
    policy = fitted([2 / 3] * 200 + [1 / 3] * 200)
    assert like_recorded(policy, [round(2 / 3, 6)] * 50 + [round(1 / 3, 6)] * 50).distance == 0.0
