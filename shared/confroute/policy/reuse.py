"""Draft reuse: the cloud sees the edge's rejected draft, to verify or to correct it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from confroute.asks import Ask, AskGenerator, Draft, Evidence, Final, Tentative
from confroute.decision import Routed
from confroute.errors import PolicyError
from confroute.flow import Policy, intercept
from confroute.policy.wrapper import Wrapper, annotate, nested_policies, refuse_paced
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
class DraftReuse(Wrapper):
    """Show the last tier the draft that was not kept.

    It makes every escalated prompt longer, and a wrong draft can mislead: measure both on your own models first, as
    `benchmarks/draft_reuse.py` does.

    Parameters
    ----------
    policy : Policy
    mode : {"verify", "patch"}
        "verify": one word from the cloud keeps the draft, which saves its output tokens; such an answer is the edge's, and nothing is
        streamed before it is known. "patch": the cloud writes the whole answer with the draft before it.

    Raises
    ------
    PolicyError
        An unknown mode, a budget inside, which would not reserve for the draft, or a hedged policy: a hedge begins before there is a
        draft to reuse.

    Notes
    -----
    Drafts that are not plain text (tool calls, structured values) or have a flaw are not shown, and private calls show no draft to
    anyone. The edge's own words go to the cloud: they hold no more than the prompt that goes there with them.
    """

    policy: Policy
    mode: Literal["verify", "patch"] = "patch"

    def __post_init__(self) -> None:
        if self.mode not in {"verify", "patch"}:
            msg = f"mode is {self.mode!r}: expected 'verify' or 'patch'"
            raise PolicyError(msg)
        refuse_paced(self.policy, "DraftReuse")
        # By what it says of itself: the class lies above this module.
        if any(getattr(inner, "begins_ahead", False) for inner in nested_policies(self.policy)):
            msg = "a hedge starts before there is a draft to reuse: use either Hedged or DraftReuse"
            raise PolicyError(msg)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        drafts: list[tuple[str, Generation]] = []
        verified = shown = False

        def answer(ask: Ask) -> AskGenerator[Evidence]:
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
            reply = evidence.generations[0] if evidence.generations else Generation(text="")
            verified = reply.text.strip().strip(".!\"'").upper() == "OK"
            return (
                replace(evidence, generations=(replace(draft, usage=reply.usage, model=reply.model),))
                if verified
                else evidence
            )

        routed = yield from intercept(self.policy.flow(request), answer)
        if not shown:
            return routed
        if not verified or routed.decision.route != self.tiers[-1]:
            return annotate(routed, "reuse", {"mode": self.mode})
        reason = f"{routed.decision.reason}; {self.tiers[-1]} verified the draft, which is returned"
        return annotate(
            routed, "reuse", {"mode": self.mode, "verified": True}, route=drafts[-1][0], reason=reason
        )


def _usable(draft: Generation) -> bool:
    return bool(draft.text.strip()) and draft.answer is None and draft.flaw is None
