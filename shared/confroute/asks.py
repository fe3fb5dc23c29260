"""What policies and signals can ask for, and the evidence that they get.

Neither ever calls a model. It yields an `Ask`; a driver (see `confroute.flow`) has the work done and sends the `Evidence` back, or
throws the error that the work ended in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, Union, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.decision import Decision
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.types import Generation, Message, Usage

T = TypeVar("T")
Floats: TypeAlias = npt.NDArray[np.float64]
Layers: TypeAlias = Literal["top-third", "all"] | int
Outcome: TypeAlias = Literal["wait", "commit", "cut"]


@runtime_checkable
class Watch(Protocol):
    """Decides about a draft while it is written: a pure function of its log-probabilities so far."""

    def __call__(self, tokens: int, nats: float) -> Outcome:
        """Return "wait" for more tokens, "commit" to this draft, or "cut" it off.

        Parameters
        ----------
        tokens : int
            Tokens so far, 1 or more.
        nats : float
            The sum of their negative log-probabilities, 0 or more.
        """
        ...


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class HelpTool:
    """A tool by which a model says that a larger one should answer: offered beside the caller's, never executed and never shown.

    Parameters
    ----------
    name : str
        As the model sees it; no tool of the caller may have the same.
    words : str
        What the model is told of it.

    Raises
    ------
    PolicyError
        A name that providers refuse: anything but 1 to 64 letters of ASCII, digits, "_" and "-".
    """

    name: str = "ask_larger_model"
    words: str = (
        "Hand this step to a larger, slower and more expensive model. Call it when you are not sure which tool or which "
        "arguments are right, or when no tool fits. It takes no arguments."
    )

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.name)):
            msg = f"name is {self.name!r}: expected 1 to 64 letters of ASCII, digits, '_' or '-'"
            raise PolicyError(msg)

    @property
    def form(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        parameters = {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.words, "parameters": parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One answer of `tier` that may still be thrown away: never shown before the policy keeps it.

    Attributes
    ----------
    tier : str
    top_logprobs : int
        Alternatives per token that the policy's signals read; a provider that returns none is asked all the same.
    note : str or None
        A message to the model after the conversation, in the user's role.
    help : HelpTool or None
        Offered beside the caller's tools.
    """

    tier: str
    top_logprobs: int = 0
    note: str | None = field(default=None, repr=False)
    help: HelpTool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tentative:
    """A draft of `tier` that `watch` may release or cut off while it is written.

    Nothing of it is shown before `watch` returns "commit"; from then on it streams and cannot be taken back. Where nothing is
    streamed, it is asked as a `Draft` and watched afterwards, so that the outcome is the same.
    """

    tier: str
    watch: Watch
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`n` independent answers of `tier` at `temperature`; `drawn` is how many were drawn before them.

    `arrived` is the executor's: answers that came before another one failed, by the number of the call that brought them. Where the
    ask is made again, only the others are drawn.
    """

    tier: str
    n: int = 1
    temperature: float = 0.7
    drawn: int = 0
    arrived: dict[int, Sequence[Generation]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One answer of `tier` to a signal's own `messages` instead of the conversation: never shown to the caller.

    It is asked with log-probabilities and `top_logprobs` alternatives per token where the provider has them, without the caller's
    tools, and for at most `max_tokens` tokens where the host can limit them.
    """

    tier: str
    messages: tuple[Message, ...] = field(repr=False)
    top_logprobs: int = 0
    max_tokens: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The answer of `tier` that the caller gets whatever it is: it may be streamed from its first token.

    `note` as in `Draft`. `private` binds the call: the executor refuses every other tier from here on.
    """

    tier: str
    note: str | None = field(default=None, repr=False)
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Several readings of `answer` by `tier`, each with other features dropped, behind the request's prompt: evidence holds `passes`.

    The other fields are those of `confroute.models.dropout.dropout_passes`. Only a model whose weights are in this process can answer;
    any other ends in SignalUnavailableError.
    """

    tier: str
    answer: str = field(repr=False)
    passes: int = 10
    rate: float = 0.01
    layers: Layers = "top-third"
    prompt: bool = False
    seed: int = 0


def dropout_fault(passes: int, rate: float, layers: Layers, seed: int) -> str | None:
    """Return what is wrong with the settings of dropout passes, or None.

    Examples
    --------
    >>> dropout_fault(1, 0.1, "all", 0)
    'passes is 1: expected at least 2, since one pass says nothing about their spread'
    """
    if passes < 2:
        return f"passes is {passes}: expected at least 2, since one pass says nothing about their spread"
    if not 0 <= rate < 1:
        return f"rate is {rate}: expected a share of features in [0, 1); 0.01 is usual"
    counted = isinstance(layers, int) and not isinstance(layers, bool) and layers >= 1
    if not counted and layers not in ("top-third", "all"):
        return f"layers is {layers!r}: expected 'top-third', 'all' or a number of top layers from 1"
    if seed < 0:
        return f"seed is {seed}: expected 0 or more"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """Hidden states of `tier` behind the request's prompt, before any token of an answer: evidence holds `numbers`.

    `layers` count from 0, the embeddings; shape (layers, width). Only a model whose weights are in this process can answer; any other
    ends in SignalUnavailableError.
    """

    tier: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The record of a call that is about to end in an error."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Unit vectors of `texts` by the embedding model named `model`, or vectors by the function `embed` where there is one."""

    texts: tuple[str, ...] = field(repr=False)
    model: str
    embed: Callable[[Sequence[str]], npt.NDArray[np.float32]] | None = field(
        default=None, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entails:
    """For each pair, the probability that the first text entails the second, by the NLI model `model`."""

    pairs: tuple[tuple[str, str], ...] = field(repr=False)
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Several asks at the same time: evidence holds `parts`, the evidence of each or the error that it ended in.

    A `Final` in it is never streamed.
    """

    asks: tuple[Ask, ...]


InsideAsk: TypeAlias = Score | Hidden
ModelAsk: TypeAlias = Draft | Sample | Final | Prompt | InsideAsk
WorkAsk: TypeAlias = Embed | Entails
StreamAsk: TypeAlias = Final | Tentative


@dataclass(frozen=True, slots=True, kw_only=True)
class Consult:
    """A call of `work`, which reads or changes stored state (a budget, an audit) or asks rules; its result is the evidence's `value`.

    `waits`: whether it may take long, on a disk, a network or a processor. Then it does not run on an event loop. `ends`: whether the
    deadline of the call ends it, as it must not end what was paid for.
    """

    work: Callable[[], Any]
    waits: bool = False
    ends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Begin `ask` and continue at once: the same `Final`, asked later, waits for this answer."""

    ask: Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Cancel what `Begin` began; the evidence holds its answer, or its error, if it had come already."""

    ask: Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Ask a model in the background and hand its evidence, or the error it ended in, to `then`; nobody waits for it."""

    ask: Draft
    then: Callable[[Evidence | Exception], None]


Ask: TypeAlias = Union[ModelAsk, WorkAsk, Tentative, Report, Consult, Begin, Cancel, Shadow, "Gather"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutPasses:
    """Probabilities and entropies of one answer's tokens under several passes with dropout.

    Attributes
    ----------
    logprobs : ndarray of float64, shape (passes, tokens)
        Natural logarithm of each answer token's probability in each pass, at most 0.
    total : ndarray of float64, shape (tokens,)
        Entropy of the mean predictive distribution over the whole vocabulary, in nats, in [0, log vocabulary].
    expected : ndarray of float64, shape (tokens,)
        Mean of the passes' own entropies, in nats, in [0, total].

    Raises
    ------
    SignalUnavailableError
        Shapes that do not belong together, or values that are not finite.
    """

    logprobs: Floats = field(compare=False)
    total: Floats = field(compare=False)
    expected: Floats = field(compare=False)

    def __post_init__(self) -> None:
        shape = self.logprobs.shape
        if len(shape) != 2 or 0 in shape or not self.total.shape == self.expected.shape == shape[1:]:
            msg = (
                f"shapes of logprobs, total, expected are {shape}, {self.total.shape}, {self.expected.shape}: "
                "expected (passes, tokens), (tokens,), (tokens,) with at least one of each"
            )
            raise SignalUnavailableError(msg)
        if not all(np.isfinite(part).all() for part in (self.logprobs, self.total, self.expected)):
            msg = (
                "a dropout pass gave values that are not finite; load the model in float32 or lower the rate"
            )
            raise SignalUnavailableError(msg)

    @property
    def mutual_information(self) -> Floats:
        """Mutual information of each token and the weights (BALD), in nats, 0 or more; shape (tokens,)."""
        return np.asarray(np.maximum(0.0, self.total - self.expected), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResult:
    """How watching a `Tentative` ended: the last outcome of its `watch`, after so many tokens and nats."""

    outcome: Outcome
    tokens: int
    nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The result of one ask.

    Attributes
    ----------
    generations : tuple of Generation
        For Draft, Prompt and Final one answer, for Sample up to `n`, else empty.
    numbers : ndarray or None
        For Embed shape (texts, dimensions), for Entails shape (pairs,), for Hidden shape (layers, width), else None.
    passes : DropoutPasses or None
        For Score.
    parts : tuple of Evidence or Exception
        For Gather, in the order of its asks.
    latency_s : float
        Wall time of the ask, retries included.
    attempts : int
        How often it was made.
    watch : WatchResult or None
        For Tentative.
    value : object
        For Consult what its work returned; for Cancel the error that the answer ended in.
    lost : Usage or None
        Billed beside what the answers report: for attempts that brought none, and by routers inside beyond what their answers report.
    inner : tuple of Decision
        What was decided by routers inside the call, those of failed attempts included.
    """

    generations: tuple[Generation, ...] = ()
    numbers: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    passes: DropoutPasses | None = field(default=None, compare=False)
    parts: tuple[Evidence | Exception, ...] = ()
    latency_s: float = 0.0
    attempts: int = 1
    watch: WatchResult | None = None
    value: Any = field(default=None, compare=False)
    lost: Usage | None = None
    inner: tuple[Decision, ...] = ()


# What policies and signals are: they yield asks, receive evidence, and return a decision, a measurement, ...
AskGenerator: TypeAlias = Generator[Ask, Evidence, T]
