"""Latency hedging: the cloud begins while the edge's answer is still being judged."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from confroute.asks import Ask, Begin, Cancel, Consult, Draft, Evidence, Final, Report, Shadow, Tentative
from confroute.decision import Routed, Step
from confroute.errors import BudgetSpentError, PolicyError
from confroute.flow import Flow, Policy
from confroute.policy.reuse import DraftReuse
from confroute.policy.wrapper import Shown, layers_of, noted, through
from confroute.registry import register
from confroute.types import Request, Usage

# Of text without a tokenizer: a token is about 4 bytes of English.
_BYTES_A_TOKEN = 4


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(Shown):
    """Begin the last tier's answer beside the evidence on the draft, and cancel whichever is not needed.

    Worth its price where waiting is dearer than tokens: an escalated call no longer waits for the samples first, a
    kept one pays for a cloud call that was cancelled.

    Parameters
    ----------
    policy : Policy
        Usually a `Cascade` with a grey zone.
    when : {"grey", "draft"}
        Begin when further evidence is asked for, so for drafts in a grey zone or without log-probabilities; or with
        the draft already, for every call that the policy drafts.
    tags : tuple of str
        Only calls that carry one of these; all calls where empty.

    Raises
    ------
    PolicyError
        An unknown word, or a policy that reuses drafts: a hedge begins before there is one to reuse.

    Notes
    -----
    Private, forced and ruled calls are never hedged: they have no draft to judge. The cost of a cancelled answer
    stands in the decision as a step "hedge": the provider's count if it had finished, else the estimated prompt alone,
    marked as an estimate (a budget charges the whole reservation then). A synchronous call cannot be cancelled: it runs
    to its end in its thread, and its answer is dropped.
    """

    policy: Policy
    when: Literal["grey", "draft"] = "grey"
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.when not in {"grey", "draft"}:
            msg = f"when is {self.when!r}: expected 'grey' or 'draft'"
            raise PolicyError(msg)
        if any(isinstance(layer, DraftReuse) for layer in layers_of(self.policy)):
            msg = "a hedge begins before there is a draft to reuse: take Hedged or DraftReuse, not both"
            raise PolicyError(msg)

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those of the policy."""
        tiers: tuple[str, ...] = getattr(self.policy, "tiers", ("edge", "cloud"))
        return tiers

    def flow(self, request: Request) -> Flow:
        """Route one request; see `confroute.flow.Policy`."""
        if self.tags and not request.tags.intersection(self.tags):
            return (yield from self.policy.flow(request))
        return (yield from _Hedge(self, request).run())


class _Hedge:
    """One call's hedge."""

    def __init__(self, layer: Hedged, request: Request) -> None:
        self.layer, self.request = layer, request
        self.final = Final(tier=layer.tiers[-1])
        self.drafted = self.begun = self.used = False

    def run(self) -> Flow:
        """The policy's own flow, with the last tier begun where it may be needed."""
        try:
            routed = yield from through(self.layer.policy.flow(self.request), self.answer)
        except Exception:
            if self.begun and not self.used:
                yield Cancel(ask=self.final)
            raise
        if not self.begun:
            return routed
        if self.used:
            return noted(routed, "hedge", {"used": True})
        dropped = yield Cancel(ask=self.final)
        return self.lost(routed, dropped)

    def answer(self, ask: Ask) -> Generator[Ask, Evidence, Evidence]:
        """Begin before the ask that the hedge is to run beside; hand over what was begun when it is wanted."""
        if isinstance(ask, Final):
            if self.begun and ask.tier == self.final.tier:
                self.used = True
                return (yield self.final)
            return (yield ask)
        if isinstance(ask, (Draft, Tentative)):
            self.drafted = True
            if self.layer.when == "draft":
                yield from self.begin()
        elif self.drafted and not isinstance(ask, (Consult, Report, Shadow)):
            yield from self.begin()
        return (yield ask)

    def begin(self) -> Generator[Ask, Evidence, None]:
        """Begin once; a budget that has nothing left for a hedge leaves the call unhedged."""
        if self.begun:
            return
        try:
            yield Begin(ask=self.final)
        except BudgetSpentError:
            return
        self.begun = True

    def lost(self, routed: Routed, dropped: Evidence) -> Routed:
        """The result with the cost of the answer that was not needed."""
        said = dropped.generations[0] if dropped.generations else None
        tier = self.request.tiers.get(self.final.tier)
        usage = said.usage if said else None
        if usage is None:
            size = sum(len(message.text.encode("utf-8", "replace")) for message in self.request.messages)
            known = tier.input_tokens if tier else None
            usage = Usage(input_tokens=known or size // _BYTES_A_TOKEN)
        step = Step(
            kind="hedge",
            tier=self.final.tier,
            model=(said.model if said else None) or (tier.model if tier else self.final.tier),
            n=1 if said else 0,
            usage=usage,  # and no latency: nobody waited for it
            error=None if said else "cancelled",
        )
        return noted(routed, "hedge", {"used": False, "estimated": said is None or said.usage is None}, step)
