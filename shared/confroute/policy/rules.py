"""Rules: what is decided before any model is asked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from confroute.errors import MissingExtraError, PolicyError, RequestError
from confroute.policy.patterns import check_pattern
from confroute.registry import register
from confroute.text_extraction import read
from confroute.types import TIERS, Context, Reading, Request

Detect: TypeAlias = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The decision of a rule.

    Attributes
    ----------
    rule : str
        Name of the rule.
    tier : str
        The tier that answers.
    reason : str
        In words; never text of the prompt.
    private : bool
        True if nothing of this call may reach any other tier, whatever fails and whoever asks.
    """

    rule: str
    tier: str
    reason: str
    private: bool = False


@runtime_checkable
class Rule(Protocol):
    """Anything that can decide a call at once, such as a function of the request.

    One that takes long has an attribute `waits` that is true: it is asked in a thread beside the event loop, and no longer than until
    the call's deadline.
    """

    def __call__(self, request: Request) -> Ruling | None:
        """Return a ruling, or None to leave the call to the next rule and to the evidence."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateOnly:
    """The rulings of a rule that keep a call private, without its others: those hold in whatever policy stands inside."""

    rule: Rule

    @property
    def waits(self) -> bool:
        """As the rule does."""
        return getattr(self.rule, "waits", False)

    def __call__(self, request: Request) -> Ruling | None:
        """Return the ruling if it is a private one."""
        ruling = self.rule(request)
        return ruling if ruling is not None and ruling.private else None


def _check(*tuples: tuple[str, ...], patterns: tuple[str, ...], detect: Detect | None) -> None:
    """Refuse what could never match."""
    if not any((patterns, *tuples)) and detect is None:
        msg = "a rule without patterns, tags, purposes, tools and detector never applies: give at least one"
        raise PolicyError(msg)
    if any(isinstance(given, str) for given in (patterns, *tuples)):
        msg = "patterns, tags, purposes and tools are tuples of strings: write ('...',) for a single one"
        raise PolicyError(msg)
    if detect is not None and not callable(detect):
        msg = f"detect is {detect!r}: expected a function of a text"
        raise PolicyError(msg)
    for pattern in patterns:
        check_pattern(pattern)


def _conversation(request: Request) -> list[str]:
    """All texts of the messages: the whole conversation is sent."""
    texts = [text for message in request.messages for text in (message.text, message.beside) if text]
    return [*texts, request.question] if request.question else texts


def _sent(request: Request, tier: str) -> tuple[list[str], list[str], bool]:
    """What is said, whatever else would be sent to other models than a tier's, and whether something could not be read."""
    context = request.context or Context()
    given = [*filter(None, (*_conversation(request), *context.passages, context.existing_answer))]
    own, more = read(*given), Reading() if request.reads is None else request.reads(tier)
    said = dict.fromkeys([*given, *own.texts])
    return [*said], [text for text in more.texts if text not in said], own.unread or more.unread


def _with_folded(texts: list[str]) -> list[str]:
    """The texts, and each that has them without other forms of its letters and without characters that have no width."""
    folded = (unicodedata.normalize("NFKC", text) for text in texts if not text.isascii())
    plain = ["".join(char for char in text if unicodedata.category(char) not in _NO_WIDTH) for text in folded]
    return [*dict.fromkeys([*texts, *plain])]


def _named(kind: str, names: tuple[str, ...], present: frozenset[str]) -> str | None:
    return next((f"{kind} {name!r}" for name in names if name in present), None)


# Of formatting (a joiner, a soft hyphen, a change of direction), and what is drawn upon the letter before it.
_NO_WIDTH = frozenset({"Cf", "Me"})
# What a label such as "private=yes" may say.
_YES = frozenset({"true", "1", "1.0", "yes", "y", "on"})
_NO = frozenset({"false", "0", "0.0", "no", "n", "off", "none", ""})


def _folded(label: str) -> str:
    return label.strip().casefold().replace("_", "-")


def _labelled(names: tuple[str, ...], present: frozenset[str]) -> str | None:
    """The first of `names` that a call is labelled with, however it is spelt: "Private" or "private=yes".

    Raises
    ------
    RequestError
        A label says neither yes nor no: which of the two was meant must not be guessed.
    """
    wanted = {_folded(name): name for name in names} if present else {}
    for label in present:
        known = wanted.get(_folded(label))
        if known is None:
            name, _, value = label.partition("=")
            known = wanted.get(_folded(name))
            if known is None or _folded(value) in _NO:
                continue
            if _folded(value) not in _YES:
                msg = f"the label {known!r} has a value that is neither yes nor no: expected True or False"
                raise RequestError(msg)
        return f"tag {known!r}"
    return None


def _matching_pattern(patterns: tuple[str, ...], texts: Sequence[str]) -> str | None:
    for position, pattern in enumerate(patterns, start=1):
        if any(re.search(pattern, text) for text in texts):
            return f"pattern {position}"
    return None


def _detected(detect: Detect, texts: Sequence[str]) -> str | None:
    name = getattr(detect, "__name__", type(detect).__name__)
    try:
        return f"detector {name}" if any(detect(text) for text in texts) else None
    except MissingExtraError:
        raise
    except Exception as error:  # noqa: BLE001  the reason names it, and a text that could not be checked stays private
        return f"detector {name} failed with {type(error).__name__}"


@register(kind="rule")
@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPrivate:
    """Keep calls that match on the first tier, whatever else is set, fails or is asked for.

    Without patterns, tools or a detector it reads no text: only tagged calls match.

    Parameters
    ----------
    patterns : tuple of str
        Regular expressions, searched in every text that would be sent to another model: messages with the names of their speakers and
        their tool calls, addresses and titles of attachments, definitions of tools, schemas, further arguments of the call; names as well
        as values, as they are and decoded.
    tags : tuple of str
        Tags of the request, however they are spelt ("Private", "never_cloud"); or labels that say yes ("private=true", from the metadata
        `{"private": "true"}`). One that says neither yes nor no is refused.
    tools : tuple of str
        Names of tools: calls that may use one of them match.
    detect : callable, optional
        `detect(text)` is true of a private text; it is called with the texts of the conversation, and with all others as one, after the
        other conditions: in a thread where calls are asynchronous, and until the call's deadline. A call for which it raises counts as
        private. `confroute.policy.Presidio` is one.
    unread : {"keep", "send"}
        What happens to a call that no pattern or detector matches while something in it cannot be read, such as an image or a file: it
        counts as private, or it does not. Without patterns and detector nothing is read.
    fold : bool
        Whether texts are searched a second time without what changes a word's letters and not its looks: other forms of letters
        (full-width, ligatures; Unicode's NFKC) and characters without a width.
    tier : str
        The tier that may see private text.
    local : bool
        Whether `tier`, which is the cloud or another than a policy's first, runs where private text may go.
    name : str
        Name of the rule in decisions.

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
    unread: Literal["keep", "send"] = "keep"
    fold: bool = False
    tier: str = "edge"
    local: bool = False
    name: str = "keep_private"

    def __post_init__(self) -> None:
        if self.unread not in ("keep", "send"):
            msg = f"unread is {self.unread!r}: expected 'keep' or 'send'"
            raise PolicyError(msg)
        self.check_tier(TIERS)
        _check(self.tags, self.tools, patterns=self.patterns, detect=self.detect)

    def check_tier(self, tiers: tuple[str, ...]) -> None:
        """Refuse to keep private text on a later tier than the first, where nobody said that it may go there.

        Raises
        ------
        PolicyError
        """
        if self.tier in tiers[1:] and not self.local:
            msg = (
                f"a private rule keeps calls on {self.tier!r}, a later tier than {tiers[0]!r}: set local=True if private text may go to its "
                "model"
            )
            raise PolicyError(msg)

    @property
    def waits(self) -> bool:
        """Whether it takes long: a detector may."""
        return self.detect is not None

    def __call__(self, request: Request) -> Ruling | None:
        """Keep the call if it matches."""
        match = self._match(request)
        if match is None:
            return None
        reason = f"private ({match}): stays on {self.tier}"
        return Ruling(rule=self.name, tier=self.tier, reason=reason, private=True)

    def _match(self, request: Request) -> str | None:
        """The condition that the request meets, in words that do not repeat its text."""
        match = _labelled(self.tags, request.tags) or _named("tool", self.tools, request.tools)
        if match is not None:
            return match
        if not self.patterns and self.detect is None:
            return None
        said, beside, unread = _sent(request, self.tier)
        if self.fold:
            said, beside = _with_folded(said), _with_folded(beside)
        match = _matching_pattern(self.patterns, [*said, *beside])
        if match is None and self.detect is not None:
            # A detector may take long: what is not said goes to it in one piece.
            match = _detected(self.detect, [*said, "\n".join(beside)] if beside else said)
        return (
            "something that cannot be read" if match is None and unread and self.unread == "keep" else match
        )


@register(kind="rule")
@dataclass(frozen=True, slots=True, kw_only=True)
class SendTo:
    """Send calls that match to one tier at once.

    Parameters
    ----------
    tier : str
    patterns, tags, tools : tuple of str
        As in `KeepPrivate`, but patterns are searched in the conversation only: a tool's definition is the same in every call. A tag may
        name a tenant: "tenant=acme".
    purposes : tuple of str
        The host's names of the steps that calls are for. LlamaIndex: "text_qa", "refine", "summary", "condense", "query_gen",
        "keyword_extract", "single_select" and its other prompt types.
    name : str
        Name of the rule in decisions.

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
        _check(self.tags, self.purposes, self.tools, patterns=self.patterns, detect=None)

    def __call__(self, request: Request) -> Ruling | None:
        """Send the call if it matches."""
        match = (
            (f"purpose {request.purpose!r}" if request.purpose in self.purposes else None)
            or _named("tag", self.tags, request.tags)
            or _named("tool", self.tools, request.tools)
            or _matching_pattern(self.patterns, _conversation(request))
        )
        if match is None:
            return None
        return Ruling(rule=self.name, tier=self.tier, reason=f"{match} goes to {self.tier}")
