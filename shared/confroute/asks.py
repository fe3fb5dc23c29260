"""What a policy can ask for, and what it is given back.

A policy never calls a model. It yields an `Ask`; whoever drives it (see `confroute.flow`) does the work and
sends `Evidence` back, or throws the error that the work ended in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, Union, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.decision import Decision
from confroute.errors import SignalUnavailableError
from confroute.types import Generation, Message

Floats: TypeAlias = npt.NDArray[np.float64]
Layers: TypeAlias = Literal["top-third", "all"] | int
Outcome: TypeAlias = Literal["wait", "commit", "cut"]


@runtime_checkable
class Watch(Protocol):
    """What is to become of a draft while it is written: a pure function of its log-probabilities so far."""

    def __call__(self, tokens: int, nats: float) -> Outcome:
        """Say "wait" for more, "commit" to this draft, or "cut" it off.

        Parameters
        ----------
        tokens : int
            Tokens so far, 1 or more.
        nats : float
            The sum of their negative log-probabilities, 0 or more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One answer of `tier` that may still be thrown away: never shown before the policy keeps it.

    `top_logprobs` is how many alternatives a token its signals read; providers that return none are not refused.
    `note` is said to the model after the conversation, as the user.
    """

    tier: str
    top_logprobs: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tentative:
    """A draft of `tier` that `watch` may release or cut off while it is written.

    Nothing of it is shown before `watch` says "commit"; from then on it streams and cannot be taken back. Where nothing
    is streamed, or no log-probabilities come, it is a `Draft` whose log-probabilities are gone through afterwards, so that
    the outcome is the same.
    """

    tier: str
    watch: Watch
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`n` independent answers of `tier` at `temperature`; `drawn` were drawn before them."""

    tier: str
    n: int = 1
    temperature: float = 0.7
    drawn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One answer of `tier` to a signal's own `messages` instead of the conversation: never shown to the caller.

    It is asked with log-probabilities and `top_logprobs` alternatives a token where the provider has them, without
    the caller's tools, and cut after `max_tokens` where the host can say so.
    """

    tier: str
    messages: tuple[Message, ...]
    top_logprobs: int = 0
    max_tokens: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The answer of `tier` that the caller gets whatever it is: it may be streamed from its first token.

    `note` as in `Draft`. `private` binds the call: whoever drives it refuses every other tier from here on.
    """

    tier: str
    note: str | None = None
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Readings of `answer` by `tier` with dropout, behind the request's prompt: evidence holds `passes`.

    The other fields are those of `confroute.models.dropout.dropout_passes`. Only a model whose weights are in this
    process can answer; asking any other ends in SignalUnavailableError.
    """

    tier: str
    answer: str
    passes: int = 10
    rate: float = 0.01
    layers: Layers = "top-third"
    prompt: bool = False
    seed: int = 0


def dropout_fault(passes: int, rate: float, layers: Layers, seed: int) -> str | None:
    """What is wrong with the settings of dropout passes, or None.

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

    `layers` count from 0, the embeddings; shape (layers, width). Only a model whose weights are in this process can
    answer; asking any other ends in SignalUnavailableError.
    """

    tier: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The record of a call that is about to end in an error."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Unit vectors of `texts` by the embedding model named `model`, or vectors by `embed` where it is given."""

    texts: tuple[str, ...]
    model: str
    embed: Callable[[Sequence[str]], npt.NDArray[np.float32]] | None = field(
        default=None, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entails:
    """For each pair, the probability that the first text entails the second, by the NLI model `model`."""

    pairs: tuple[tuple[str, str], ...]
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Several asks at the same time: evidence holds `parts`, what each brought or the error it ended in.

    A `Final` in it is never streamed.
    """

    asks: tuple[Ask, ...]


InsideAsk: TypeAlias = Score | Hidden
ModelAsk: TypeAlias = Draft | Sample | Final | Prompt | InsideAsk
WorkAsk: TypeAlias = Embed | Entails


@dataclass(frozen=True, slots=True, kw_only=True)
class Consult:
    """Something that remembers (a budget, an audit) is asked by `work()`; the result is the evidence's `value`.

    `waits` says that it may block, on a disk or a network: never on an event loop.
    """

    work: Callable[[], Any]
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Begin `ask` and go on at once: the same `Final`, asked later, waits for this answer."""

    ask: Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Give up what was begun; the evidence holds its answer if there was one already."""

    ask: Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Ask a model after the caller has the answer, and tell `then` what came of it; nobody waits for it."""

    ask: Draft
    then: Callable[[Evidence | Exception], None]


Ask: TypeAlias = Union[ModelAsk, WorkAsk, Tentative, Report, Consult, Begin, Cancel, Shadow, "Gather"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutPasses:
    """What several passes with dropout say about one answer.

    Attributes
    ----------
    logprobs : ndarray of float64, shape (passes, tokens)
        Natural logarithm of each answer token's probability in each pass, at most 0.
    total : ndarray of float64, shape (tokens,)
        Entropy of the mean predictive distribution over the whole vocabulary, in nats, in [0, log vocabulary].
    expected : ndarray of float64, shape (tokens,)
        Mean of the passes' own entropies, in nats, in [0, total].

    Shapes that do not belong together and values that are not finite raise SignalUnavailableError.
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
class Seen:
    """How watching a `Tentative` ended: what its `watch` said last, after how many tokens and nats."""

    outcome: Outcome
    tokens: int
    nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one ask brought.

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
        Calls it took.
    seen : Seen or None
        For Tentative only.
    value : object
        For Consult what its work returned, else None.
    """

    generations: tuple[Generation, ...] = ()
    numbers: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    passes: DropoutPasses | None = field(default=None, compare=False)
    parts: tuple[Evidence | Exception, ...] = ()
    latency_s: float = 0.0
    attempts: int = 1
    seen: Seen | None = None
    value: Any = field(default=None, compare=False)
