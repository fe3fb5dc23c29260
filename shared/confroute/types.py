"""Values that all of confroute shares: messages, answers, usage, tiers, requests.

All of them are frozen and keyword-only. None prints what was asked or answered, which may be private: logs and tracebacks would keep it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from confroute.errors import BadLogprobsError

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Finish: TypeAlias = Literal["stop", "length", "content_filter", "error", "tool_calls", "cancelled", "unknown"]
# The ends of an answer that is not whole.
UNFINISHED: Mapping[Finish, str] = MappingProxyType(
    {
        "length": "is cut off at its length limit",
        "content_filter": "is cut off by a content filter",
        "error": "ends in an error of its provider",
    }
)
# Of a router between two models.
TIERS = ("edge", "cloud")
# Of one call: a number, numbers by signal, or either of these under the name of a tier.
Thresholds: TypeAlias = "float | Mapping[str, float | Mapping[str, float]]"
Alternatives: TypeAlias = "tuple[tuple[str, float], ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation, as text.

    Attributes
    ----------
    role : {"system", "user", "assistant", "tool"}
    text : str
        The words of the turn.
    beside : str
        What else is sent with it, one text per line, for rules to search: the speaker's name, addresses and titles of attachments,
        a tool call's decoded arguments.
    calls : tuple of str
        The tool calls in it, each by a digest of tool and arguments: equal calls have equal ones.
    failed : bool
        Whether it is the result of a tool call that failed, as its host says; a text may say so too.
    """

    role: Role
    text: str = field(repr=False)
    beside: str = field(default="", repr=False)
    calls: tuple[str, ...] = field(default=(), repr=False)
    failed: bool = False


def transcript(messages: Sequence[Message]) -> str:
    """Write a conversation as one text, a line "role: text" per message.

    Examples
    --------
    >>> print(transcript([Message(role="system", text="Be brief."), Message(role="user", text="2 + 2?")]))
    system: Be brief.
    user: 2 + 2?
    """
    return "\n".join(f"{message.role}: {message.text}" for message in messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens that one or more calls were billed for.

    Attributes
    ----------
    input_tokens, output_tokens : int
        All of them, those below included.
    cached_tokens : int
        Input tokens that the provider read from its prompt cache, which most sell for less.
    cache_write_tokens : int
        Input tokens that the provider wrote to its prompt cache and charges for as such; none of them is among `cached_tokens`.
    reasoning_tokens : int
        Output tokens that the model spent on reasoning before its answer.

    Examples
    --------
    >>> Usage(input_tokens=3, output_tokens=2) + Usage(input_tokens=1, output_tokens=1)
    Usage(input_tokens=4, output_tokens=3)
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    def __repr__(self) -> str:
        return f"Usage({', '.join(f'{name}={value}' for name, value in self.to_dict().items())})"

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def is_sound(self) -> bool:
        """False where a count is below 0: such a bill would give money back."""
        parts = (self.cached_tokens, self.reasoning_tokens, self.cache_write_tokens)
        return min(self.input_tokens, self.output_tokens, *parts) >= 0

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, JSON]:
        """JSON form; the last three counts stand in it where there are any."""
        record: dict[str, JSON] = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        if self.cached_tokens:
            record["cached_tokens"] = self.cached_tokens
        if self.reasoning_tokens:
            record["reasoning_tokens"] = self.reasoning_tokens
        if self.cache_write_tokens:
            record["cache_write_tokens"] = self.cache_write_tokens
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One answer of one model, whichever framework asked for it.

    Attributes
    ----------
    text : str
        The answer as the user reads it.
    logprobs : tuple of float or None
        Natural logarithm of each generated token's probability, in order, in (-inf, 0]. None when the provider returned none; that
        never counts as certainty.
    tokens : tuple of str or None
        The generated tokens, aligned with `logprobs`.
    top_logprobs : tuple of alternatives or None
        For each token the likeliest ones at its position, each as (token, natural logarithm of its probability), best
        first. The generated token need not be among them. None when they were not requested or not returned.
    usage : Usage or None
        Tokens billed for this call. In a batch of samples only the first one counts the prompt.
    finish : {"stop", "length", "content_filter", "error", "tool_calls", "cancelled", "unknown"}
        Why generation ended. After "length", "content_filter" and "error" the answer is not whole; "unknown" says nothing, since
        some servers give no reason for whole answers either.
    model : str or None
        The model's own name.
    latency_s : float
        Wall time of the call, in seconds.
    answer : str or None
        The part to compare with other answers where the text does not hold it: a tool call or a structured value in canonical form.
    calls : tuple of str
        The tool calls of the answer, as in `Message.calls`.
    fields : mapping of str to tuple of float
        Log-probabilities of each value of a structured answer, by path; empty where the answer is text.
    flaw : str or None
        Why this answer cannot be used, however certain it is: a call of an unknown tool, or arguments or a structured value that do
        not validate. Does not repeat the answer.
    asks_for_help : bool
        Whether it is a call of the tool by which a model asks for a larger one (`confroute.asks.HelpTool`).
    from_cache : bool
        Whether the host gave it from its own cache of answers: then no model was called, and `usage` holds no tokens.
    unfinished : bool
        Whether it is a stream that ended without a reason: it may be cut off.
    raw : object
        The host framework's own answer, returned as it came.
    """

    text: str = field(repr=False)
    logprobs: tuple[float, ...] | None = None
    tokens: tuple[str, ...] | None = field(default=None, repr=False)
    top_logprobs: tuple[Alternatives, ...] | None = field(default=None, repr=False)
    usage: Usage | None = None
    finish: Finish = "unknown"
    model: str | None = None
    latency_s: float = 0.0
    answer: str | None = field(default=None, repr=False)
    calls: tuple[str, ...] = field(default=(), repr=False)
    fields: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    flaw: str | None = None
    asks_for_help: bool = False
    from_cache: bool = False
    unfinished: bool = False
    raw: Any = field(default=None, repr=False, compare=False)


def total_usage(answers: Iterable[Generation]) -> Usage | None:
    """What several answers were billed together; None where none reports it."""
    usages = [answer.usage for answer in answers if answer.usage is not None and answer.usage.is_sound]
    return sum(usages, Usage()) if usages else None


def with_sound_usage(answer: Generation) -> Generation:
    """The answer; its usage counts as not reported where it cannot be one."""
    return answer if answer.usage is None or answer.usage.is_sound else replace(answer, usage=None)


# Providers round: OpenAI-compatible servers return tiny positive values for tokens that are certain.
ROUNDING_NATS = 1e-4
# Providers bill an end-of-turn marker or two that have no log-probability.
UNSCORED_TOKENS = 2
# One token or two may be certain; of more, one is not.
_ZEROS = 3


def only_zeros(logprobs: Sequence[float]) -> bool:
    """Whether three log-probabilities or more are all exactly 0: servers that compute none fill in zeros.

    Examples
    --------
    >>> only_zeros((0.0, 0.0, 0.0)), only_zeros((0.0, -1e-7, 0.0)), only_zeros((0.0, 0.0))
    (True, False, False)
    """
    return len(logprobs) >= _ZEROS and not any(logprobs)


def checked_logprobs(
    logprobs: tuple[float, ...] | None, *, output_tokens: int | None = None
) -> tuple[float, ...] | None:
    """Return `logprobs` clipped to at most 0, or refuse values that cannot be probabilities of the whole answer.

    Parameters
    ----------
    logprobs : tuple of float or None
        Natural logarithms, one per generated token. None and the empty tuple both mean that there are none.
    output_tokens : int, optional
        Tokens that the provider billed. Up to two of them may have no log-probability (end-of-turn markers); where more have none,
        part of the answer is not scored.

    Raises
    ------
    BadLogprobsError
        NaN, an infinity, a value above rounding error, or fewer values than tokens.

    Examples
    --------
    >>> checked_logprobs((-0.1, 1e-6))
    (-0.1, 0.0)
    >>> checked_logprobs(()) is None
    True
    """
    if not logprobs:
        return None
    # Built-ins, for answers of thousands of tokens; the Python loop only finds the position of the first bad value.
    highest = max(logprobs)
    if not all(map(math.isfinite, logprobs)) or highest > ROUNDING_NATS:
        place = next(i for i, v in enumerate(logprobs) if not math.isfinite(v) or v > ROUNDING_NATS)
        raise BadLogprobsError(position=place, value=logprobs[place])
    if output_tokens is not None and len(logprobs) + UNSCORED_TOKENS < output_tokens:
        raise BadLogprobsError(count=len(logprobs), output_tokens=output_tokens)
    return logprobs if highest <= 0.0 else tuple(min(0.0, value) for value in logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """What is known of one model before it is called.

    Attributes
    ----------
    name : str
        "edge", "cloud" or another of the policy's tiers.
    model : str
        The model's own name.
    context_window : int or None
        Tokens that prompt and answer may take together; None when unknown.
    input_tokens : int or None
        Estimated tokens of this request's prompt for this model; None when unknown.
    lacks : str or None
        A capability that this request needs and the model does not have ("tools", "images").
    can_sample : bool
        Whether several different answers can be drawn.
    closed : str or None
        Why this tier is passed over at the moment, such as an alarm; None if it is not.
    """

    name: str
    model: str
    context_window: int | None = None
    input_tokens: int | None = None
    lacks: str | None = None
    can_sample: bool = True
    closed: str | None = None

    @property
    def fits(self) -> bool:
        """False only if the prompt is known to be longer than the context window."""
        if self.context_window is None or self.input_tokens is None:
            return True
        return self.input_tokens < self.context_window


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What was retrieved for a question, apart from the prompt that it was inserted into.

    Attributes
    ----------
    passages : tuple of str
        Texts that the answer should rest on.
    scores : tuple of float or None
        The retriever's score of each passage on its own scale, higher is closer; None where it gave none.
    existing_answer : str or None
        An earlier answer that this call is to refine.
    """

    passages: tuple[str, ...] = field(default=(), repr=False)
    scores: tuple[float, ...] | None = None
    existing_answer: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was found in something that is sent.

    Attributes
    ----------
    texts : tuple of str
        Every text in it, each once.
    unread : bool
        Whether there is something that could not be read: an image, a file.
    """

    texts: tuple[str, ...] = field(default=(), repr=False)
    unread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call, as the policy sees it.

    Attributes
    ----------
    messages : tuple of Message
        The whole conversation, oldest first.
    tiers : mapping of str to Tier
        Facts about each tier for this request.
    route : str or None
        A tier forced by the caller.
    threshold : float or mapping of str to float or to such a mapping, or None
        The threshold for this call: a number for a policy of one signal, else numbers by signal name. Under the name of a tier stands what
        holds for its drafts alone.
    threshold_source : str
        Where that threshold comes from, for the decision.
    tags : frozenset of str
        Labels that rules may read.
    tools : frozenset of str
        Names of the tools that the model may call.
    reads : callable or None
        `reads(tier)` reads everything that would be sent to any other model than that tier's, where the host knows more of it than the
        messages. It takes time: only rules that search texts ask for it.
    attachments : bool
        Whether the conversation holds content that is not text.
    whole : bool
        Whether only the complete answer can be judged: a tool call, a structured value.
    question : str or None
        The question without retrieved context, where the host keeps them apart.
    context : Context or None
        What was retrieved for the question.
    purpose : str or None
        The step that the call is for, where the host names it: "text_qa", "refine", "summary", "condense".
    begun_on : str or None
        The tier whose answer this call continues, such as one to refine; None for a new call.
    run_id : str or None
        Of this call, for its decision; None where the host gives the id to the executor alone.
    question_id : str or None
        The caller's own name of the question, for its decision.
    """

    messages: tuple[Message, ...] = field(repr=False)
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    route: str | None = None
    threshold: Thresholds | None = None
    threshold_source: str = "given for this call"
    tags: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
    reads: Callable[[str], Reading] | None = field(default=None, compare=False, repr=False)
    attachments: bool = False
    whole: bool = False
    question: str | None = field(default=None, repr=False)
    context: Context | None = field(default=None, repr=False)
    purpose: str | None = None
    begun_on: str | None = None
    run_id: str | None = field(default=None, compare=False)
    question_id: str | None = field(default=None, compare=False)

    def label(self, name: str) -> str | None:
        """The tag "name=value" of this call, such as the thread that a host names; None where it has none.

        Examples
        --------
        >>> Request(messages=(), tags=frozenset({"hard", "thread_id=7"})).label("thread_id")
        'thread_id=7'
        """
        return min((tag for tag in self.tags if tag.startswith(f"{name}=")), default=None)

    @property
    def asked(self) -> str:
        """The question to judge answers by: `question`, else the last user message."""
        if self.question is not None:
            return self.question
        users = (m.text for m in reversed(self.messages) if m.role == "user")
        return next(users, self.messages[-1].text if self.messages else "")
