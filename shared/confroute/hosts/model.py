"""What a host supplies: one model, as the core calls it.

A host (LangChain, LlamaIndex, plain Python) turns its own models into `HostModel`. Everything above that is written once: which
calls an ask takes, samples, what a provider refuses, what came back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

from confroute.asks import HelpTool
from confroute.types import Generation, Message

if TYPE_CHECKING:
    from confroute.models.local import LocalModel

C_co = TypeVar("C_co", covariant=True)
Role: TypeAlias = Literal["draft", "sample", "final", "prompt"]
Inside: TypeAlias = "tuple[LocalModel, Sequence[Message]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of one model before it is called, without I/O.

    Attributes
    ----------
    model : str
        The model's own name.
    identity : object
        What refusals are remembered by: two calls with equal identity reach the same model. Hashable; None where nothing
        can be remembered.
    context_window : int or None
        Tokens that prompt and answer may take together; None when unknown.
    max_output : int or None
        Tokens that the model sets aside for its answer; None when unknown.
    can_sample : bool
        Whether several different answers can be drawn.
    answers_per_call : bool
        Whether one call with `n` gives n answers.
    concurrent : bool
        Whether samples may be drawn at the same time.
    thread_safe : bool
        Whether that holds for synchronous calls too, which are made in threads.
    blocking : bool
        Whether async calls would block the event loop, and so run in threads.
    asks_logprobs : bool
        Whether log-probabilities may be asked for; False where the class has no such setting, or the user chose already.
    keeps_logprobs : bool
        Whether a final answer's are asked for as well, since the caller gets them.
    alternatives : int
        Alternatives per token that log-probabilities are asked for with at the least, though no signal may read them.
    retries : bool
        Whether the model's client repeats failed calls by itself.
    streams : bool
        Whether its streams are written while they are read; where not, an answer comes whole, and none is cut off.
    named : bool
        Whether `model` is the name of a model; False where it is that of a class, a function or a chain.
    answer_limit : int or None
        The longest answer, in tokens, that somebody set the model to; None for no limit, or an unknown one.
    inside : callable or None
        The network in this process and the conversation as it reads it; None for a model that runs elsewhere.
    """

    model: str
    identity: object = None
    context_window: int | None = None
    max_output: int | None = None
    can_sample: bool = True
    answers_per_call: bool = False
    concurrent: bool = True
    thread_safe: bool = True
    blocking: bool = False
    asks_logprobs: bool = True
    keeps_logprobs: bool = False
    alternatives: int = 0
    retries: bool = False
    streams: bool = True
    named: bool = True
    answer_limit: int | None = None
    inside: Callable[[], Inside] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One call of a model, as the core wants it made.

    Attributes
    ----------
    role : {"draft", "sample", "final", "prompt"}
        A "final" is asked exactly as the user set the model up, and for log-probabilities where the caller keeps them. The others
        may be thrown away, and are never shown as they come.
    n : int
        Answers wanted; above 1 only where `ModelFacts.answers_per_call`.
    drawn : int
        Samples drawn before this one: a fixed seed moves on by it.
    temperature : float or None
        Of a sample; None for the model's own.
    logprobs : bool
        Whether log-probabilities are wanted, where the model can be asked for them.
    top_logprobs : int
        Alternatives per token that are wanted; 0 for none.
    max_tokens : int or None
        The longest answer; None for the model's own.
    messages : tuple of Message or None
        A signal's own prompt in place of the conversation, sent without the caller's tools and stop strings.
    note : str or None
        Said to the model after the conversation, as the user.
    help : HelpTool or None
        A tool to offer beside the caller's; an answer that calls it is marked by `confroute.hosts.tool_calls.asking_for_help`.
    streamed : bool
        Whether the answer is read in chunks.
    """

    role: Role
    n: int = 1
    drawn: int = 0
    temperature: float | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    max_tokens: int | None = None
    messages: tuple[Message, ...] | None = field(default=None, repr=False)
    note: str | None = field(default=None, repr=False)
    help: HelpTool | None = None
    streamed: bool = False


class HostModel(Protocol[C_co]):
    """One model with the conversation of one call: four calls and its facts. `C_co` is the host's own chunk."""

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        ...

    def call(self, call: ModelCall) -> Sequence[Generation]:
        """Make the call and return its answers, `call.n` of them; errors are raised as the model's client raised them.

        Answers whose `latency_s` is left at 0 are timed by the caller.
        """
        ...

    async def acall(self, call: ModelCall) -> Sequence[Generation]:
        """Async form of `call`."""
        ...

    def stream(self, call: ModelCall) -> Generator[C_co | Generation, None, None]:
        """Yield the host's chunks as they come and, as the last item, the whole answer."""
        ...

    def astream(self, call: ModelCall) -> AsyncGenerator[C_co | Generation, None]:
        """Async form of `stream`."""
        ...
