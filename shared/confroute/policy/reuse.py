"""Draft reuse: the cloud gets the edge's rejected draft, to verify or to work from."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Literal

from confroute.asks import Ask, Draft, Evidence, Final, Tentative
from confroute.errors import PolicyError
from confroute.flow import Flow, Policy
from confroute.policy.wrapper import Shown, noted, through
from confroute.registry import register
from confroute.types import Generation, Request

VERIFY = (
    "A smaller model answered the last message above with the text between the lines.\n---\n{draft}\n---\n"
    "If that answer is entirely correct and complete, reply with the single word OK. "
    "Otherwise reply with the correct answer alone, and do not mention the smaller model."
)
PATCH = (
    "A smaller model answered the last message above with the text between the lines; it may be wrong.\n"
    "---\n{draft}\n---\n"
    "Answer the last message yourself. Keep what is right in that text and do not mention it."
)


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class DraftReuse(Shown):
    """Show the last tier the draft that was not kept.

    Off unless you put it around a policy: it makes every escalated prompt longer, and a wrong draft can mislead. Measure
    both on your own models first, as `tests/perf/draft_reuse.py` does.

    Parameters
    ----------
    policy : Policy
    mode : {"verify", "patch"}
        "verify": one word from the cloud keeps the draft, which saves its output tokens; such an answer is the edge's,
        and is never streamed before it is known. "patch": the cloud writes the whole answer, the draft before it.

    Raises
    ------
    PolicyError
        An unknown mode.

    Notes
    -----
    Drafts that cannot be used as they are (tool calls, structured values, flaws) are not shown. A private call has no
    further tier to show a draft to. The edge's own words go to the cloud: they hold no more than the prompt that goes
    there with them.
    """

    policy: Policy
    mode: Literal["verify", "patch"] = "patch"

    def __post_init__(self) -> None:
        if self.mode not in {"verify", "patch"}:
            msg = f"mode is {self.mode!r}: expected 'verify' or 'patch'"
            raise PolicyError(msg)

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those of the policy."""
        tiers: tuple[str, ...] = getattr(self.policy, "tiers", ("edge", "cloud"))
        return tiers

    def flow(self, request: Request) -> Flow:
        """Route one request; see `confroute.flow.Policy`."""
        drafts: list[tuple[str, Generation]] = []
        verified = shown = False

        def answer(ask: Ask) -> Generator[Ask, Evidence, Evidence]:
            nonlocal verified, shown
            if isinstance(ask, (Draft, Tentative)):
                evidence = yield ask
                drafts.extend((ask.tier, draft) for draft in evidence.generations[:1] if _usable(draft))
                return evidence
            if not isinstance(ask, Final) or ask.private or not drafts or ask.tier != self.tiers[-1]:
                return (yield ask)
            shown, draft = True, drafts[-1][1]
            if self.mode == "patch":
                return (yield replace(ask, note=PATCH.format(draft=draft.text)))
            # A draft, not a final answer: the word that keeps the edge's must not be streamed to the user.
            evidence = yield Draft(tier=ask.tier, note=VERIFY.format(draft=draft.text))
            said = evidence.generations[0] if evidence.generations else Generation(text="")
            verified = said.text.strip().strip(".!\"'").upper() == "OK"
            return (
                replace(evidence, generations=(replace(draft, usage=said.usage, model=said.model),))
                if verified
                else evidence
            )

        routed = yield from through(self.policy.flow(request), answer)
        if not shown:
            return routed
        if not verified or routed.decision.route != self.tiers[-1]:
            return noted(routed, "reuse", {"mode": self.mode})
        reason = f"{routed.decision.reason}; {self.tiers[-1]} verified the draft, which is returned"
        return noted(
            routed, "reuse", {"mode": self.mode, "verified": True}, route=drafts[-1][0], reason=reason
        )


def _usable(draft: Generation) -> bool:
    return bool(draft.text.strip()) and draft.answer is None and draft.flaw is None
