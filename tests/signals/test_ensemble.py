"""Ensembles: decomposition of the entropy, members asked at the same time, failed members named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Cascade, Ensemble, Gate, Threshold
from confroute.asks import DropoutPasses, Evidence
from confroute.errors import MissingExtraError, PolicyError, SignalUnavailableError
from confroute.executor import run
from confroute.signals import Case
from confroute.signals.ensemble import spread
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation, Message, Request, Tier

REQUEST = Request(messages=(Message(role="user", text="How many legs has a spider?"),))
NAMES = ("b", "c", "d")


def routed(ensemble: Ensemble, *, arrive: Callable[[], None] = lambda: None, **models: ScriptedModel):
    """What the ensemble made of its members, each of which calls `arrive` first."""
    calls = ScriptedCalls(models={"edge": ScriptedModel(["8"]), "cloud": ScriptedModel(["eight"]), **models})
    answer = calls.call(REQUEST)

    def call(ask: Any) -> list[Generation]:
        if ask.tier in models:
            arrive()
        return answer(ask)

    return run(Cascade.of(ensemble, 0.5), REQUEST, call, {})


def test_spread_by_hand() -> None:
    """Members certain of different answers: all entropy is disagreement. Members equally unsure: none of it is."""
    assert spread([["8"], ["6"], ["8"], ["8"]]) == pytest.approx(
        (
            -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
            0.0,
            -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
        )
    )
    assert spread([["8", "6"], ["6", "8"]]) == pytest.approx((math.log(2), math.log(2), 0.0))


@given(st.lists(st.lists(st.sampled_from(["1", "2", None]), min_size=2, max_size=2), min_size=2, max_size=5))
def test_spread_bounds(votes: list[list[str | None]]) -> None:
    """0 <= information <= log members, expected <= total, whatever the order; equal answers give 0."""
    total, own, information = spread(votes)
    assert 0 <= information <= math.log(len(votes)) + 1e-12
    assert own <= total + 1e-12
    assert spread(votes[::-1]) == pytest.approx((total, own, information))
    assert spread([["1", "1"]] * len(votes)) == (0.0, 0.0, 0.0)


def test_members_are_asked_at_once_and_billed_by_name(meeting: Any) -> None:
    """None of three members answers before all have been asked; a third of them disagrees."""
    models = {name: ScriptedModel(["6" if name == "b" else "8"]) for name in NAMES}
    decision = routed(Ensemble(members=NAMES), arrive=meeting(3).wait, **models).decision
    assert decision.route == "edge"
    assert decision.uncertainty == pytest.approx(1 / 3)
    assert set(decision.usage) == {"edge", *NAMES}
    details = decision.signals["ensemble"].details
    assert details["heard"] == 3
    assert details["mutual_information_nats"] == pytest.approx(0.562335, abs=1e-5)


def test_a_failed_member_reduces_the_ensemble_and_is_named() -> None:
    """The rest decides, and the details say who is missing and why."""
    models = {name: ScriptedModel(["8"]) for name in NAMES} | {
        "c": ScriptedModel([Reply(fault=OSError("gone"))])
    }
    decision = routed(Ensemble(members=NAMES), **models).decision
    assert decision.route == "edge"
    details = decision.signals["ensemble"].details
    assert (details["members"], details["heard"], details["failed"]) == (3, 2, {"c": "OSError"})


def test_an_ensemble_without_answers_is_skipped() -> None:
    """All members fail: the gate is skipped, never passed with a low uncertainty."""
    models = {name: ScriptedModel([Reply(fault=OSError("gone"))]) for name in NAMES}
    decision = routed(Ensemble(members=NAMES), **models).decision
    assert (decision.route, decision.stage) == ("cloud", "no_signal")
    assert "no member of the ensemble" in decision.skipped["ensemble"]


def test_an_unknown_member_is_raised() -> None:
    """A name without a model in the router is a mistake in the set-up, not a failed member."""
    with pytest.raises(PolicyError, match="no scripted model for tier 'b'"):
        routed(Ensemble(members=NAMES))


def test_samples_separate_doubt_from_disagreement() -> None:
    """Members that are equally unsure have entropy, hardly any of which is mutual information."""
    models = {name: ScriptedModel(["8"], samples=["8", "6"]) for name in NAMES}
    signal = Ensemble(members=NAMES, statistic="mutual_information", samples=2)
    details = routed(signal, **models).decision.signals["ensemble"].details
    assert details["expected_entropy_nats"] == pytest.approx(0.75 * math.log(2), abs=1e-6)
    assert details["mutual_information_nats"] < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": ()},
        {"members": ("a", "a")},
        {"members": ("a",), "statistic": "mean"},
        {"members": ("a",), "samples": 0},
        {"members": ("a",), "temperature": 0.0},
    ],
)
def test_settings_that_measure_nothing_are_refused(wrong: dict) -> None:
    """Each is a PolicyError at once."""
    with pytest.raises(PolicyError):
        Ensemble(**wrong)


def test_policy_files_hold_ensembles(tmp_path) -> None:
    """A saved ensemble loads as an equal one."""
    gate = Gate(signal=Ensemble(members=NAMES, samples=3), threshold=Threshold(value=0.3))
    policy = Cascade(gates=(gate,))
    policy.save(tmp_path / "p.json")
    assert Cascade.load(tmp_path / "p.json") == policy


def test_a_draft_model_that_cannot_score_is_named() -> None:
    """The draft's own tier is a member: if it fails, the variance of the others says so; if it was never set up, it raises."""
    scores = np.log([[0.5], [0.5]])
    score = Evidence(passes=DropoutPasses(logprobs=scores, total=np.zeros(1), expected=np.zeros(1)))
    signal = Ensemble(members=("b", "c"), statistic="score_variance")

    def measured(own: Exception):
        case = Case(tier=Tier(name="edge", model="m"), question="?", draft=Generation(text="8"))
        flow = signal.measure(case)
        next(flow)
        flow.send(Evidence(parts=(own, score, score)))

    with pytest.raises(StopIteration) as done:
        measured(SignalUnavailableError("elsewhere"))
    assert done.value.value.details["failed"] == {"edge": "SignalUnavailableError"}
    with pytest.raises(MissingExtraError):
        measured(MissingExtraError(extra="local", needed_for="a score"))
