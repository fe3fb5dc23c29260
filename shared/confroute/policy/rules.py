"""Rules: what is decided before any model is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from confroute.errors import PolicyError
from confroute.types import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a rule decided.

    Attributes
    ----------
    rule : str
        Name of the rule.
    tier : str
        Tier that answers.
    reason : str
        In words; never text of the prompt.
    private : bool
        True if nothing of this call may reach any other tier, whatever fails and whoever asks for it.
    """

    rule: str
    tier: str
    reason: str
    private: bool = False


@runtime_checkable
class Rule(Protocol):
    """Anything that may decide a call at once: a function of the request will do."""

    def __call__(self, request: Request) -> Ruling | None:
        """Return a ruling, or None to leave the call to the next rule and to the evidence."""
        ...


def _matching(
    request: Request, patterns: tuple[str, ...], tags: tuple[str, ...], purposes: tuple[str, ...] = ()
) -> str | None:
    """What in the request the rule is about, in words that do not repeat the text."""
    if request.purpose in purposes:
        return f"purpose {request.purpose!r}"
    for tag in tags:
        if tag in request.tags:
            return f"tag {tag!r}"
    for position, pattern in enumerate(patterns):
        # The whole conversation is sent, so all of it is looked at.
        texts = [m.text for m in request.messages] + ([request.question] if request.question else [])
        if any(re.search(pattern, text) for text in texts):
            return f"pattern {position + 1}"
    return None


def _check(patterns: tuple[str, ...], tags: tuple[str, ...], purposes: tuple[str, ...] = ()) -> None:
    if not patterns and not tags and not purposes:
        msg = "a rule without patterns, tags and purposes never applies: give at least one"
        raise PolicyError(msg)
    if any(isinstance(given, str) for given in (patterns, tags, purposes)):
        msg = "patterns, tags and purposes are tuples of strings: write ('...',) for a single one"
        raise PolicyError(msg)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            msg = f"pattern {pattern!r} is no regular expression: {error}"
            raise PolicyError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPrivate:
    """Calls that match stay on the first tier, whatever else is set, fails or is asked for.

    Parameters
    ----------
    patterns : tuple of str
        Regular expressions, searched in every message of the conversation.
    tags : tuple of str
        Tags of the request.
    tier : str
        Where private text may go.

    Examples
    --------
    >>> from confroute.types import Message
    >>> rule = KeepPrivate(patterns=(r"(?i)salary",))
    >>> rule(Request(messages=(Message(role="user", text="My salary is 4,000."),))).private
    True
    """

    patterns: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("private",)
    tier: str = "edge"

    def __post_init__(self) -> None:
        _check(self.patterns, self.tags)

    def __call__(self, request: Request) -> Ruling | None:
        """Keep the call if it matches."""
        found = _matching(request, self.patterns, self.tags)
        if found is None:
            return None
        return Ruling(
            rule="keep_private",
            tier=self.tier,
            reason=f"private ({found}): stays on {self.tier}",
            private=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTo:
    """Calls that match go to one tier at once.

    Parameters
    ----------
    tier : str
    patterns, tags : tuple of str
        As in `KeepPrivate`.
    purposes : tuple of str
        What calls are for, as the host names it. LlamaIndex: "text_qa", "refine", "summary", "condense",
        "query_gen", "keyword_extract", "single_select" and its other prompt types.

    Examples
    --------
    >>> from confroute.types import Message
    >>> rule = SendTo(tier="edge", purposes=("condense", "keyword_extract", "summary"))
    >>> rule(Request(messages=(Message(role="user", text="..."),), purpose="condense")).reason
    "purpose 'condense' goes to edge"
    """

    tier: str
    patterns: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self.patterns, self.tags, self.purposes)

    def __call__(self, request: Request) -> Ruling | None:
        """Send the call if it matches."""
        found = _matching(request, self.patterns, self.tags, self.purposes)
        return (
            None
            if found is None
            else Ruling(rule="send_to", tier=self.tier, reason=f"{found} goes to {self.tier}")
        )
