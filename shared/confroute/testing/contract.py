"""What every adapter owes its users, as tests that an adapter's own test class inherits.

::

    class TestMyHost(AdapterContract):
        forms = ("call", "acall", "stream", "astream")

        def send(
            self, form, question, *, edge, cloud, policy, **options
        ): ...  # build the adapter over the two scripted models, ask, return Answered(...)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from confroute.errors import (
    AllTiersFailedError,
    RequestError,
    StreamInterruptedError,
    TierError,
)
from confroute.flow import Policy
from confroute.policy import Cascade, KeepPrivate, Prefix, Threshold
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.testing import faults
from confroute.testing.scripted import Reply, ScriptedModel

QUESTION = "Which city lies on the Aare?"
SURE, UNSURE = Reply(text="Bern it is", logprob=-0.05), Reply(text="Rome perhaps", logprob=-1.0)
DOWN = Reply(fault=faults.cut_off())
_FAULTS = (
    faults.timeout(),
    faults.rate_limited(),
    faults.server_error(),
    faults.cut_off(),
    faults.malformed(),
)
_PREFIX = Prefix(commit=Threshold(value=0.1), cut=Threshold(value=0.9), tokens=2, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a caller of the adapter got.

    Attributes
    ----------
    text : str
        The answer as the caller reads it, for a stream put together from its chunks.
    decision : mapping or None
        What the host's own answer carries as the decision, in JSON form.
    chunks : sequence of str
        Texts of a stream's chunks, empty ones included.
    """

    text: str
    decision: Any
    chunks: Sequence[str] = ()


class AdapterContract:
    """Inherit, name the `forms` of a call, and define `send`; pytest then runs every test in every form.

    Attributes
    ----------
    forms : tuple of str
        The adapter's ways to make one call. Those with "stream" in their name are streams.
    """

    forms: ClassVar[tuple[str, ...]] = ()

    def send(
        self,
        form: str,
        question: str,
        *,
        edge: ScriptedModel,
        cloud: ScriptedModel,
        policy: Policy,
        route: str | None = None,
    ) -> Answered:
        """Ask `question` through the adapter, one attempt a tier, and return what came; errors are raised as they are.

        Parameters
        ----------
        form : str
            One of `forms`.
        question : str
            The only message, of the user.
        edge, cloud : ScriptedModel
            To be put behind the host's interface.
        policy : Policy
        route : str, optional
            A route that the caller forces, in the host's own way.
        """
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run each test in each form."""
        if "form" in metafunc.fixturenames:
            streams = metafunc.function.__name__.startswith("test_stream")
            metafunc.parametrize("form", [f for f in self.forms if "stream" in f or not streams])

    def _ask(self, form: str, edge: Reply | str, cloud: Reply | str = "Bern", **given: Any) -> _Asked:
        models = {
            "edge": ScriptedModel([edge], samples=given.pop("samples", ()), name="small"),
            "cloud": ScriptedModel([cloud], name="large"),
        }
        given.setdefault("policy", Cascade.of(TokenLogprob(), 0.3))
        question = given.pop("question", QUESTION)
        return _Asked(
            models=models,
            send=lambda: self.send(form, question, edge=models["edge"], cloud=models["cloud"], **given),
        )

    def test_sure_answer_is_kept(self, form: str) -> None:
        """The edge's own words, and the cloud is not asked."""
        asked = self._ask(form, SURE)
        got = asked.send()
        assert (got.text, got.decision["route"], got.decision["stage"]) == ("Bern it is", "edge", "draft")
        assert got.decision["uncertainty"] == 0.05
        assert asked.calls == (1, 0)

    def test_unsure_answer_is_replaced(self, form: str) -> None:
        """By the cloud's, each model asked once with the same words, and nothing of the draft shown."""
        asked = self._ask(form, UNSURE)
        got = asked.send()
        assert (got.text, got.decision["route"]) == ("Bern", "cloud")
        assert not any("Rome" in chunk for chunk in got.chunks)
        assert asked.calls == (1, 1)
        assert asked.models["edge"].heard[0].prompt == asked.models["cloud"].heard[0].prompt

    def test_all_that_was_billed_is_counted(self, form: str) -> None:
        """The discarded draft too."""
        usage = self._ask(form, UNSURE).send().decision["usage"]
        assert usage["edge"]["output_tokens"] == 2
        assert usage["cloud"]["output_tokens"] == 1

    def test_decision_is_json_without_text(self, form: str) -> None:
        """It goes into logs."""
        told = json.dumps(self._ask(form, UNSURE).send().decision)
        assert not any(word in told for word in ("Aare", "Rome", "Bern"))

    def test_forced_route(self, form: str) -> None:
        """Whatever the evidence."""
        asked = self._ask(form, UNSURE, route="edge")
        assert asked.send().decision["stage"] == "forced"
        assert asked.calls == (1, 0)

    def test_private_text_stays(self, form: str) -> None:
        """Even if the caller forces the cloud."""
        policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("Aare",)),))
        asked = self._ask(form, UNSURE, policy=policy, route="cloud")
        assert asked.send().decision["private"]
        assert asked.calls == (1, 0)

    def test_private_text_stays_when_the_edge_fails(self, form: str) -> None:
        """An error, and the cloud is not asked."""
        policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("Aare",)),))
        asked = self._ask(form, DOWN, policy=policy)
        _raises(TierError, asked)
        assert asked.calls[1] == 0

    def test_no_evidence_is_no_confidence(self, form: str) -> None:
        """No log-probabilities, and impossible ones."""
        for reply in (Reply(text="Bern", logprob=None), Reply(text="Bern", logprobs=(float("nan"),))):
            assert self._ask(form, reply, "Basel").send().decision["stage"] == "no_signal"

    def test_samples_decide(self, form: str) -> None:
        """Drawn from the edge at the signal's temperature; they do not become the answer."""
        policy = Cascade.of(SelfConsistency(n=4, temperature=0.7, step=4), 0.6)
        asked = self._ask(form, SURE, policy=policy, samples=["Bern it is", "Rome"])
        got = asked.send()
        assert (got.text, got.decision["uncertainty"]) == ("Bern it is", 0.5)
        assert [heard.temperature for heard in asked.models["edge"].heard][1:] == [0.7] * 4

    def test_edge_down(self, form: str) -> None:
        """Whatever the fault, the cloud answers and the decision says why."""
        for fault in _FAULTS:
            got = self._ask(form, Reply(fault=fault)).send()
            assert (got.text, got.decision["stage"]) == ("Bern", "fallback")
            assert type(fault).__name__ in got.decision["reason"]

    def test_cloud_down_after_a_rejected_draft(self, form: str) -> None:
        """An error, or the flagged draft where the policy allows it."""
        _raises(TierError, self._ask(form, UNSURE, DOWN))
        lenient = Cascade.of(TokenLogprob(), 0.3, on_cloud_error="edge")
        got = self._ask(form, UNSURE, DOWN, policy=lenient).send()
        assert (got.text, got.decision["degraded"]) == ("Rome perhaps", True)

    def test_both_down(self, form: str) -> None:
        """One error that names both."""
        _raises(AllTiersFailedError, self._ask(form, DOWN, DOWN))

    def test_empty_question(self, form: str) -> None:
        """Is refused before any call."""
        asked = self._ask(form, SURE, question=" ")
        _raises(RequestError, asked)
        assert asked.calls == (0, 0)

    def test_stream_that_breaks_off(self, form: str) -> None:
        """What was shown cannot be taken back: an error, and no second answer."""
        cut = Reply(text="one two three", fault=faults.cut_off(), fault_after=2)
        _raises(StreamInterruptedError, self._ask(form, UNSURE, cut))

    def test_stream_judged_while_it_is_written(self, form: str) -> None:
        """Hopeless after its first words, a draft gives way to the cloud's answer; a good one is the answer."""
        policy = Cascade(gates=Cascade.of(TokenLogprob(), 0.3).gates, prefix=_PREFIX)
        for reply, text, route in ((SURE, "Bern it is", "edge"), (UNSURE, "Bern", "cloud")):
            got = self._ask(form, reply, policy=policy).send()
            assert (got.text, got.decision["route"], got.decision["stage"]) == (text, route, "prefix")
            assert route == "edge" or not any("Rome" in chunk for chunk in got.chunks)

    def test_stream_shows_chunks(self, form: str) -> None:
        """More than one, which together are the answer."""
        got = self._ask(form, UNSURE, "one two three").send()
        assert "".join(got.chunks) == got.text == "one two three"
        assert len([chunk for chunk in got.chunks if chunk]) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A call that is ready to be sent, and the models it goes to."""

    models: dict[str, ScriptedModel]
    send: Any

    @property
    def calls(self) -> tuple[int, int]:
        """How often the edge and the cloud were asked."""
        return len(self.models["edge"].heard), len(self.models["cloud"].heard)


def _raises(kind: type[Exception], asked: _Asked) -> None:
    try:
        got = asked.send()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, got the answer {got.text!r}")
