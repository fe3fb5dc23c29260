"""Rules: what is decided before any model is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from confroute.errors import MissingExtraError, PolicyError
from confroute.registry import register
from confroute.types import Request

Detect: TypeAlias = Callable[[str], bool]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What calls a rule is about: any one of these suffices. `beside`: whether tools and arguments are looked at too."""

    patterns: tuple[str, ...]
    tags: tuple[str, ...]
    purposes: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    detect: Detect | None = None
    beside: bool = False

    def check(self) -> None:
        """Refuse what could never match."""
        named = (self.patterns, self.tags, self.purposes, self.tools)
        if not any(named) and self.detect is None:
            msg = (
                "a rule without patterns, tags, purposes, tools and detector never applies: give at least one"
            )
            raise PolicyError(msg)
        if any(isinstance(given, str) for given in named):
            msg = "patterns, tags, purposes and tools are tuples of strings: write ('...',) for a single one"
            raise PolicyError(msg)
        if self.detect is not None and not callable(self.detect):
            msg = f"detect is {self.detect!r}: expected a function of a text"
            raise PolicyError(msg)
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                msg = f"pattern {pattern!r} is no regular expression: {error}"
                raise PolicyError(msg) from error

    def found(self, request: Request) -> str | None:
        """What in the request it is, in words that do not repeat the text."""
        if request.purpose in self.purposes:
            return f"purpose {request.purpose!r}"
        for kind, wanted, held in (("tag", self.tags, request.tags), ("tool", self.tools, request.tools)):
            named = next((name for name in wanted if name in held), None)
            if named is not None:
                return f"{kind} {named!r}"
        texts = self._texts(request)
        for position, pattern in enumerate(self.patterns):
            if any(re.search(pattern, text) for text in texts):
                return f"pattern {position + 1}"
        return None if self.detect is None else _detected(self.detect, texts)

    def _texts(self, request: Request) -> list[str]:
        # The whole conversation is sent, so all of it is looked at.
        texts = [text for m in request.messages for text in (m.text, m.beside)]
        return [t for t in (*texts, request.question, request.beside if self.beside else None) if t]


def _detected(detect: Detect, texts: list[str]) -> str | None:
    name = getattr(detect, "__name__", type(detect).__name__)
    try:
        return f"detector {name}" if any(detect(text) for text in texts) else None
    except MissingExtraError:
        raise
    except Exception as error:  # noqa: BLE001  it is told, and a text nobody could look at is not let out
        return f"detector {name} failed with {type(error).__name__}"


@register(kind="rule")
@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPrivate:
    """Calls that match stay on the first tier, whatever else is set, fails or is asked for.

    Parameters
    ----------
    patterns : tuple of str
        Regular expressions, searched in every text that would be sent: messages with the names of their speakers and
        their tool calls, addresses and titles of attachments, definitions of tools, further arguments of the call. What
        is inside an image or a file is not looked at; `Request.attachments` tells a rule of your own that there is one.
    tags : tuple of str
        Tags of the request.
    tools : tuple of str
        Names of tools: calls that are offered one of them match.
    detect : callable, optional
        `detect(text)` is true of a private text; asked for each of these texts, last, before anything leaves the process.
        Where it raises, the call counts as private. `confroute.policy.Presidio` is one.
    tier : str
        Where private text may go.
    name : str
        What decisions call the rule.

    Examples
    --------
    >>> from confroute.types import Message
    >>> rule = KeepPrivate(patterns=(r"(?i)salary",))
    >>> rule(Request(messages=(Message(role="user", text="My salary is 4,000."),))).private
    True
    """

    patterns: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("private", "never-cloud")
    tools: tuple[str, ...] = ()
    detect: Detect | None = None
    tier: str = "edge"
    name: str = "keep_private"

    def __post_init__(self) -> None:
        self._about.check()

    @property
    def _about(self) -> _About:
        return _About(
            patterns=self.patterns, tags=self.tags, tools=self.tools, detect=self.detect, beside=True
        )

    def __call__(self, request: Request) -> Ruling | None:
        """Keep the call if it matches."""
        found = self._about.found(request)
        if found is None:
            return None
        return Ruling(
            rule=self.name,
            tier=self.tier,
            reason=f"private ({found}): stays on {self.tier}",
            private=True,
        )


@register(kind="rule")
@dataclass(frozen=True, slots=True, kw_only=True)
class SendTo:
    """Calls that match go to one tier at once.

    Parameters
    ----------
    tier : str
    patterns, tags, tools : tuple of str
        As in `KeepPrivate`, but patterns are searched in the conversation only: a tool's definition is the same in every
        call. A tag may name a tenant: "tenant=acme".
    purposes : tuple of str
        What calls are for, as the host names it. LlamaIndex: "text_qa", "refine", "summary", "condense",
        "query_gen", "keyword_extract", "single_select" and its other prompt types.
    name : str
        What decisions call the rule.

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
    tools: tuple[str, ...] = ()
    name: str = "send_to"

    def __post_init__(self) -> None:
        self._about.check()

    @property
    def _about(self) -> _About:
        return _About(patterns=self.patterns, tags=self.tags, purposes=self.purposes, tools=self.tools)

    def __call__(self, request: Request) -> Ruling | None:
        """Send the call if it matches."""
        found = self._about.found(request)
        if found is None:
            return None
        return Ruling(rule=self.name, tier=self.tier, reason=f"{found} goes to {self.tier}")
