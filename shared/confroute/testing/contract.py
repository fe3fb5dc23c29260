"""The contract of adapters, as tests that an adapter's own test class inherits.

::

    class TestMyHost(AdapterContract):
        forms = ("call", "acall", "stream", "astream")

        def send(
            self, form, question, *, edge, cloud, policy, **options
        ): ...  # build the adapter over the two scripted models, send the question, return AdapterAnswer(...)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from confroute.errors import (
    AllTiersFailedError,
    RequestError,
    StreamInterruptedError,
    TierError,
)
from confroute.flow import Policy
from confroute.policy import Cascade, Gate, KeepPrivate, Prefix, Threshold, TierThreshold
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
class AdapterAnswer:
    """An answer as the adapter's caller sees it.

    Attributes
    ----------
    text : str
        The text that the caller reads; for a stream, its chunks joined.
    decision : mapping or None
        The decision that the host's own answer carries, as JSON.
    chunks : sequence of str
        Texts of a stream's chunks, including empty ones.
    """

    text: str
    decision: Any
    chunks: Sequence[str] = ()


class AdapterContract:
    """Tests an adapter: inherit, list the `forms` of a call and define `send`; pytest then runs every test in every form.

    Attributes
    ----------
    forms : tuple of str
        The adapter's ways to make a call. Those with "stream" in their name are streams.
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
    ) -> AdapterAnswer:
        """Send `question` through the adapter, with one attempt per tier; errors of the adapter must pass through.

        Parameters
        ----------
        form : str
            One of `forms`.
        question : str
            The only message, in the role of the user.
        edge, cloud : ScriptedModel
            Models to put behind the host's interface.
        policy : Policy
        route : str, optional
            A route that the caller forces, by the host's own means.
        """
        raise NotImplementedError  # each adapter has its own

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run each test in each form."""
        if "form" in metafunc.fixturenames:
            streams = metafunc.function.__name__.startswith("test_stream")
            metafunc.parametrize("form", [f for f in self.forms if "stream" in f or not streams])

    def _prepare(
        self, form: str, edge: Reply | str, cloud: Reply | str = "Bern", **options: Any
    ) -> _PreparedCall:
        models = {
            "edge": ScriptedModel([edge], samples=options.pop("samples", ()), name="small"),
            "cloud": ScriptedModel([cloud], name="large"),
        }
        options.setdefault("policy", Cascade.of(TokenLogprob(), 0.3))
        question = options.pop("question", QUESTION)
        return _PreparedCall(
            models=models,
            send=lambda: self.send(form, question, edge=models["edge"], cloud=models["cloud"], **options),
        )

    def test_sure_answer_is_kept(self, form: str) -> None:
        """The caller gets the edge's own words, and the cloud is not called."""
        call = self._prepare(form, SURE)
        answer = call.send()
        assert (answer.text, answer.decision["route"], answer.decision["stage"]) == (
            "Bern it is",
            "edge",
            "draft",
        )
        assert answer.decision["uncertainty"] == 0.05
        assert call.counts == (1, 0)

    def test_unsure_answer_is_replaced(self, form: str) -> None:
        """The cloud's answer replaces it: each model gets the same prompt once, and the draft is never shown."""
        call = self._prepare(form, UNSURE)
        answer = call.send()
        assert (answer.text, answer.decision["route"]) == ("Bern", "cloud")
        assert not any("Rome" in chunk for chunk in answer.chunks)
        assert call.counts == (1, 1)
        assert call.models["edge"].calls[0].prompt == call.models["cloud"].calls[0].prompt

    def test_usage_includes_the_discarded_draft(self, form: str) -> None:
        """Everything that was billed is counted."""
        usage = self._prepare(form, UNSURE).send().decision["usage"]
        assert usage["edge"]["output_tokens"] == 2
        assert usage["cloud"]["output_tokens"] == 1

    def test_decision_is_json_without_text(self, form: str) -> None:
        """A decision may be logged, so it contains neither prompt nor answer."""
        decision = json.dumps(self._prepare(form, UNSURE).send().decision)
        assert not any(word in decision for word in ("Aare", "Rome", "Bern"))

    def test_forced_route(self, form: str) -> None:
        """A forced route wins, whatever the evidence."""
        call = self._prepare(form, UNSURE, route="edge")
        assert call.send().decision["stage"] == "forced"
        assert call.counts == (1, 0)

    def test_private_text_stays(self, form: str) -> None:
        """Private text stays on the edge, even if the caller forces the cloud."""
        policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("Aare",)),))
        call = self._prepare(form, UNSURE, policy=policy, route="cloud")
        assert call.send().decision["private"]
        assert call.counts == (1, 0)

    def test_private_text_stays_when_the_edge_fails(self, form: str) -> None:
        """The call fails, and the cloud is not called."""
        policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("Aare",)),))
        call = self._prepare(form, DOWN, policy=policy)
        _raises(TierError, call)
        assert call.counts[1] == 0

    def test_no_evidence_is_no_confidence(self, form: str) -> None:
        """Neither missing nor impossible log-probabilities count as certainty."""
        for reply in (Reply(text="Bern", logprob=None), Reply(text="Bern", logprobs=(float("nan"),))):
            assert self._prepare(form, reply, "Basel").send().decision["stage"] == "no_signal"

    def test_samples_decide(self, form: str) -> None:
        """Samples are drawn from the edge at the signal's temperature, and do not become the answer."""
        policy = Cascade.of(SelfConsistency(n=4, temperature=0.7, step=4), 0.6)
        call = self._prepare(form, SURE, policy=policy, samples=["Bern it is", "Rome"])
        answer = call.send()
        assert (answer.text, answer.decision["uncertainty"]) == ("Bern it is", 0.5)
        assert [received.temperature for received in call.models["edge"].calls][1:] == [0.7] * 4

    def test_edge_down(self, form: str) -> None:
        """Whatever the fault, the cloud answers, and the decision names the fault."""
        for fault in _FAULTS:
            answer = self._prepare(form, Reply(fault=fault)).send()
            assert (answer.text, answer.decision["stage"]) == ("Bern", "fallback")
            assert type(fault).__name__ in answer.decision["reason"]

    def test_cloud_down_after_a_rejected_draft(self, form: str) -> None:
        """The call fails, or returns the flagged draft if the policy allows it."""
        _raises(TierError, self._prepare(form, UNSURE, DOWN))
        lenient = Cascade.of(TokenLogprob(), 0.3, on_cloud_error="edge")
        answer = self._prepare(form, UNSURE, DOWN, policy=lenient).send()
        assert (answer.text, answer.decision["degraded"]) == ("Rome perhaps", True)

    def test_both_down(self, form: str) -> None:
        """The call fails with one error that names both tiers."""
        _raises(AllTiersFailedError, self._prepare(form, DOWN, DOWN))

    def test_empty_question(self, form: str) -> None:
        """An empty question is refused before any model is called."""
        call = self._prepare(form, SURE, question=" ")
        _raises(RequestError, call)
        assert call.counts == (0, 0)

    def test_stream_that_breaks_off(self, form: str) -> None:
        """Text that was shown cannot be taken back: the call fails, and no second answer begins."""
        cut = Reply(text="one two three", fault=faults.cut_off(), fault_after=2)
        _raises(StreamInterruptedError, self._prepare(form, UNSURE, cut))

    def test_stream_judged_while_it_is_written(self, form: str) -> None:
        """A draft that is bad after its first words is replaced by the cloud's answer; a good one is shown."""
        policy = Cascade(gates=Cascade.of(TokenLogprob(), 0.3).gates, prefix=_PREFIX)
        for reply, text, route in ((SURE, "Bern it is", "edge"), (UNSURE, "Bern", "cloud")):
            answer = self._prepare(form, reply, policy=policy).send()
            assert (answer.text, answer.decision["route"], answer.decision["stage"]) == (
                text,
                route,
                "prefix",
            )
            assert route == "edge" or not any("Rome" in chunk for chunk in answer.chunks)

    def test_stream_shows_chunks(self, form: str) -> None:
        """There is more than one chunk, and together they are the answer."""
        answer = self._prepare(form, UNSURE, "one two three").send()
        assert "".join(answer.chunks) == answer.text == "one two three"
        assert len([chunk for chunk in answer.chunks if chunk]) > 1


class TieredAdapterContract(AdapterContract):
    """The contract of an adapter that takes any number of tiers: define `send_tiers` in place of `send`."""

    def send_tiers(
        self,
        form: str,
        question: str,
        *,
        models: Mapping[str, ScriptedModel],
        policy: Policy,
        route: str | None = None,
    ) -> AdapterAnswer:
        """Do what `send` does, with two or three models by tier, cheapest first."""
        raise NotImplementedError  # each adapter has its own

    def send(
        self,
        form: str,
        question: str,
        *,
        edge: ScriptedModel,
        cloud: ScriptedModel,
        policy: Policy,
        route: str | None = None,
    ) -> AdapterAnswer:
        """See `AdapterContract`."""
        models = {"edge": edge, "cloud": cloud}
        return self.send_tiers(form, question, models=models, policy=policy, route=route)

    def _three(
        self, form: str, edge: Reply, middle: Reply, cloud: Reply | str = "Bern", **options: Any
    ) -> _PreparedCall:
        """A call of three tiers; `options` are fields of the cascade, and `route`."""
        route = options.pop("route", None)
        replies: dict[str, Reply | str] = {"edge": edge, "mid": middle, "cloud": cloud}
        models = {name: ScriptedModel([reply], name=f"{name}-model") for name, reply in replies.items()}
        options.setdefault("gates", Cascade.of(TokenLogprob(), 0.3).gates)
        policy = Cascade(tiers=tuple(models), **options)
        return _PreparedCall(
            models=models,
            send=lambda: self.send_tiers(form, QUESTION, models=models, policy=policy, route=route),
        )

    def test_the_middle_tier_may_keep_the_answer(self, form: str) -> None:
        """Each tier is asked in turn, and the first answer that is certain enough is shown; every token is counted."""
        call = self._three(form, UNSURE, SURE)
        answer = call.send()
        assert (answer.text, answer.decision["route"], answer.decision["stage"]) == (
            "Bern it is",
            "mid",
            "draft",
        )
        assert call.counts == (1, 1, 0)
        assert {tier: used["output_tokens"] for tier, used in answer.decision["usage"].items()} == {
            "edge": 2,
            "mid": 3,
        }
        assert "edge answer not kept" in answer.decision["reason"]
        measured = answer.decision["signals"]
        assert (measured["edge/token_logprob"]["uncertainty"], measured["token_logprob"]["uncertainty"]) == (
            1.0,
            0.05,
        )

    def test_two_rejected_drafts_are_never_shown(self, form: str) -> None:
        """The last tier's answer replaces both."""
        call = self._three(form, UNSURE, Reply(text="Milan perhaps", logprob=-0.9))
        answer = call.send()
        assert (answer.text, answer.decision["route"]) == ("Bern", "cloud")
        assert call.counts == (1, 1, 1)
        assert not any(word in chunk for chunk in answer.chunks for word in ("Rome", "Milan", "perhaps"))
        decision = json.dumps(answer.decision)
        assert not any(word in decision for word in ("Aare", "Rome", "Milan", "Bern"))

    def test_each_tier_has_its_own_threshold(self, form: str) -> None:
        """The same uncertainty is too much for the one and not for the other."""
        own = TierThreshold(tier="mid", threshold=Threshold(value=1.5, source="fitted to mid"))
        gate = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), by_tier=(own,))
        answer = self._three(form, UNSURE, UNSURE, gates=(gate,)).send()
        found = answer.decision
        assert (found["route"], found["threshold"], found["threshold_source"]) == (
            "mid",
            1.5,
            "fitted to mid",
        )

    def test_the_middle_tier_is_forced(self, form: str) -> None:
        """A caller may name any tier."""
        call = self._three(form, SURE, UNSURE, route="mid")
        assert call.send().decision["stage"] == "forced"
        assert call.counts == (0, 1, 0)

    def test_private_text_stays_on_one_of_three(self, form: str) -> None:
        """The tier that the rule names is the only one asked, whoever is forced and whatever fails."""
        on_mid = KeepPrivate(patterns=("Aare",), tier="mid", local=True)
        for rule, counts in ((KeepPrivate(patterns=("Aare",)), (1, 0, 0)), (on_mid, (0, 1, 0))):
            call = self._three(form, UNSURE, UNSURE, rules=(rule,), route="cloud")
            assert call.send().decision["private"]
            assert call.counts == counts
            failed = self._three(form, DOWN, DOWN, rules=(rule,))
            _raises(TierError, failed)
            assert [count > 0 for count in failed.counts] == [count > 0 for count in counts]

    def test_the_middle_tier_is_down(self, form: str) -> None:
        """The next one answers, and the decision names the fault."""
        answer = self._three(form, UNSURE, DOWN).send()
        assert (answer.text, answer.decision["route"]) == ("Bern", "cloud")
        assert "mid failed" in answer.decision["reason"]

    def test_the_last_of_three_is_down(self, form: str) -> None:
        """The middle tier's draft is returned, flagged, where the policy allows it; where all fail, all are named."""
        answer = self._three(
            form, UNSURE, Reply(text="Milan?", logprob=-0.9), DOWN, on_cloud_error="edge"
        ).send()
        assert (answer.text, answer.decision["route"], answer.decision["degraded"]) == ("Milan?", "mid", True)
        _raises(AllTiersFailedError, self._three(form, DOWN, DOWN, DOWN))

    def test_stream_of_three_judged_while_it_is_written(self, form: str) -> None:
        """Two drafts are cut off, and nothing of them is shown; a good one of the middle tier is shown as it is written."""
        bad = Reply(text="Milan perhaps", logprob=-2.0)
        for middle, text, route in ((SURE, "Bern it is", "mid"), (bad, "Bern", "cloud")):
            answer = self._three(form, UNSURE, middle, prefix=_PREFIX).send()
            assert (answer.text, answer.decision["route"], answer.decision["stage"]) == (
                text,
                route,
                "prefix",
            )
            assert not any(word in chunk for chunk in answer.chunks for word in ("Rome", "Milan", "perhaps"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedCall:
    """A call that is ready to be sent, and its models."""

    models: dict[str, ScriptedModel]
    send: Any

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of calls that each tier received, cheapest first."""
        return tuple(len(model.calls) for model in self.models.values())


def _raises(kind: type[Exception], call: _PreparedCall) -> None:
    try:
        answer = call.send()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, got the answer {answer.text!r}")
