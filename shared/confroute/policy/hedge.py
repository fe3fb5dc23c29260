"""Latency hedging: the cloud begins to answer while the edge's draft is still being judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from confroute.asks import (
    Ask,
    AskGenerator,
    Begin,
    Cancel,
    Consult,
    Draft,
    Evidence,
    Final,
    Report,
    Shadow,
    Tentative,
)
from confroute.decision import Decision, Routed, Step
from confroute.errors import BudgetSpentError, CallEndedError, PolicyError
from confroute.flow import Policy, intercept
from confroute.policy.reuse import DraftReuse
from confroute.policy.steps import failed_step, step_of
from confroute.policy.wrapper import Wrapper, nested_policies, refuse_paced, with_layer
from confroute.registry import register
from confroute.types import Request, Usage

# An estimate without a tokenizer: 4 bytes of English are about a token.
_BYTES_PER_TOKEN = 4


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(Wrapper):
    """Begin the last tier's answer while evidence on the draft is gathered, and cancel it if it is not needed.

    Use it where waiting costs more than tokens: an escalated call does not wait for the samples first; a kept one pays for a cloud
    call that was cancelled.

    Parameters
    ----------
    policy : Policy
        Usually a `Cascade` with a grey zone.
    when : {"grey", "draft"}
        Begin when further evidence is asked for, which is for drafts in a grey zone or without log-probabilities; or with the draft
        already, for every call that the policy drafts.
    tags : tuple of str
        Only calls that carry one of these; all calls where empty.

    Raises
    ------
    PolicyError
        An unknown `when`, a budget inside, which would not see the hedge, a policy that is hedged already, or one that reuses drafts: a
        hedge begins before there is a draft to reuse.

    Notes
    -----
    Private and forced calls and those that a rule settles are never hedged: they have no draft to judge. The decision holds the cost
    of a dropped answer as a step "hedge": the provider's count if the answer had come, what was billed if it had failed, else the
    estimated prompt alone, marked as an estimate (a budget charges the whole reservation then). A synchronous call cannot be
    cancelled: it runs to its end in its thread, and its answer is dropped.
    """

    begins_ahead: ClassVar[bool] = True
    policy: Policy
    when: Literal["grey", "draft"] = "grey"
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.when not in {"grey", "draft"}:
            msg = f"when is {self.when!r}: expected 'grey' or 'draft'"
            raise PolicyError(msg)
        refuse_paced(self.policy, "Hedged")
        if any(isinstance(inner, Hedged) for inner in nested_policies(self.policy)):
            msg = "a Hedged inside another one would start and pay for the same answer twice: give all tags to one of them"
            raise PolicyError(msg)
        if any(isinstance(inner, DraftReuse) for inner in nested_policies(self.policy)):
            msg = "a hedge starts before there is a draft to reuse: use either Hedged or DraftReuse"
            raise PolicyError(msg)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        if self.tags and not request.tags.intersection(self.tags):
            return (yield from self.policy.flow(request))
        return (yield from _Hedge(self, request).run())


class _Hedge:
    """One call's hedge."""

    def __init__(self, wrapper: Hedged, request: Request) -> None:
        self.wrapper, self.request = wrapper, request
        self.final = Final(tier=wrapper.tiers[-1])
        self.drafted = self.begun = self.used = False

    def run(self) -> AskGenerator[Routed]:
        """Run the policy and begin the last tier's answer where it may be needed."""
        try:
            routed = yield from intercept(self.wrapper.policy.flow(self.request), self.answer)
        except (Exception, CallEndedError):
            if self.begun and not self.used:
                yield Cancel(ask=self.final)
            raise
        if not self.begun:
            return routed
        return replace(routed, decision=(yield from self.ended(routed.decision)))

    def answer(self, ask: Ask) -> AskGenerator[Evidence]:
        """Begin before the ask that the hedge is to run beside; return what was begun when the policy asks for it."""
        if isinstance(ask, Final):
            if self.begun and ask.tier == self.final.tier:
                self.used = True
                return (yield self.final)
            return (yield ask)
        if isinstance(ask, Report) and self.begun:
            decision = yield from self.ended(ask.decision)
            self.begun = False
            return (yield replace(ask, decision=decision))
        if isinstance(ask, (Draft, Tentative)):
            self.drafted = True
            if self.wrapper.when == "draft":
                yield from self.begin()
        elif self.drafted and not isinstance(ask, (Consult, Report, Shadow)):
            yield from self.begin()
        return (yield ask)

    def begin(self) -> AskGenerator[None]:
        """Begin once; a call whose budget has nothing left for a hedge is not hedged."""
        if self.begun:
            return
        try:
            yield Begin(ask=self.final)
        except BudgetSpentError:
            return
        self.begun = True

    def ended(self, decision: Decision) -> AskGenerator[Decision]:
        """The decision with what became of the hedge, which is cancelled if it was not needed."""
        if self.used:
            return with_layer(decision, "hedge", {"used": True})
        dropped = yield Cancel(ask=self.final)
        step, estimated = self.step_of_dropped(dropped)
        return with_layer(decision, "hedge", {"used": False, "estimated": estimated}, step)

    def step_of_dropped(self, dropped: Evidence) -> tuple[Step, bool]:
        """The cost of the answer that was not needed, and whether it is an estimate."""
        tier, name = self.request.tiers.get(self.final.tier), self.final.tier
        model = tier.model if tier else name
        # No latency: nobody waited for it.
        if isinstance(dropped.value, Exception):
            return replace(failed_step("hedge", dropped.value, tier=name, model=model), latency_s=0.0), False
        answer = dropped.generations[0] if dropped.generations else None
        step = step_of("hedge", dropped, tier=name, model=(answer.model if answer else None) or model)
        step = replace(step, latency_s=0.0, error=None if answer else "cancelled")
        if step.usage is not None:
            return step, False
        size = sum(len(message.text.encode("utf-8", "replace")) for message in self.request.messages)
        known = tier.input_tokens if tier else None
        return replace(step, usage=Usage(input_tokens=known or size // _BYTES_PER_TOKEN)), True
