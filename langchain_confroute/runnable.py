"""`ConfidenceRouter`: two or more whole chains behind the interface of one."""

from __future__ import annotations

import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from typing_extensions import override

from confroute.alignment import answer_tokens
from confroute.decision import Routed
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.flow import Policy
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.hosts.requests import check_policy, request_of
from confroute.hosts.tiers import default_policy, limits_by_tier, models_by_tier, refuse_same
from confroute.models.resilience import Limits
from confroute.text_extraction import ReadOnce, read
from confroute.types import JSON, Generation, Message, Reading, Request, Usage
from langchain_confroute import compat
from langchain_confroute.calls import TAGS, HostedRunnable
from langchain_confroute.messages import as_sent, to_core, to_generation, with_wordless_answer
from langchain_confroute.models import same_model, sent_with
from langchain_confroute.options import config_specs, options_of, refuse_misplaced, tags_of
from langchain_confroute.run import (
    InOrder,
    Opened,
    RoutedCall,
    arun_chain,
    astream_chain,
    run_chain,
    stream_chain,
)
from langchain_confroute.withheld import Gate

Chain: TypeAlias = Runnable[Any, Any]
In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


def text_of(output: object) -> str:
    """The text of a chain's output: a message's own, a string as it is, anything else as Python writes it.

    Examples
    --------
    >>> text_of("yes"), text_of({"answer": 4})
    ('yes', "{'answer': 4}")
    """
    return str(output.text) if isinstance(output, BaseMessage) else str(output)


def prompt_of(inputs: object) -> tuple[Message, ...]:
    """A chain's input as a conversation: messages as they are, a mapping by its values."""
    if isinstance(inputs, PromptValue):
        return to_core(inputs.to_messages())
    if isinstance(inputs, BaseMessage):
        return to_core([inputs])
    if (
        isinstance(inputs, (list, tuple))
        and inputs
        and all(isinstance(m, (BaseMessage, tuple)) for m in inputs)
    ):
        return to_core(convert_to_messages(list(inputs)))
    if isinstance(inputs, Mapping):
        return tuple(message for value in inputs.values() for message in prompt_of(value))
    return (Message(role="user", text=str(inputs)),)


class ConfidenceRouter(InOrder[In, Out]):
    """Answers with one of its chains: the cheapest one's where it can be trusted, the next one's where not.

    Parameters
    ----------
    edge, cloud : Runnable
        Any chains of the same input: prompt, model, parser and whatever else.
    policy : Policy
        The same object that serves `ChatConfRoute`; the uncalibrated `Cascade` of these tiers if not given.
    edge_limits, cloud_limits : Limits
    edge_sampler : callable, optional
        The edge chain at a given temperature, for policies that draw samples. Without it there are none.
    tiers : mapping of str to Runnable, optional
        In place of `edge` and `cloud`: two or more chains by name, cheapest first.
    limits : mapping of str to Limits, optional
        By tier, in place of `edge_limits` and `cloud_limits`.
    samplers : mapping of str to callable, optional
        By tier, in place of `edge_sampler`.
    text : callable
        The text of a chain's output, by which answers are compared.

    Raises
    ------
    PolicyError
        Two tiers are the same chain, the policy names other tiers, there is a sampler for no tier, or both forms of tiers, limits or
        samplers are given.

    Notes
    -----
    Log-probabilities are those that the models inside the edge chain return: set `logprobs=True` on them. If several
    answer, all have to. The decision is in the event "confroute.decision" and in `confroute.record()`; the output is
    the chain's own. Per-call overrides are those of `ChatConfRoute`.

    Examples
    --------
    >>> from confroute import Cascade, TokenLogprob, record
    >>> from langchain_core.output_parsers import StrOutputParser
    >>> from langchain_confroute.testing import ScriptedChat
    >>> small = ScriptedChat.of("4", logprob=-0.01).bind(logprobs=True) | StrOutputParser()
    >>> large = ScriptedChat.of("four") | StrOutputParser()
    >>> router = ConfidenceRouter(edge=small, cloud=large, policy=Cascade.of(TokenLogprob(), 0.1))
    >>> with record() as decisions:
    ...     print(router.invoke("2 + 2?"), decisions[0].route)
    4 edge
    """

    def __init__(
        self,
        *,
        edge: Runnable[In, Out] | None = None,
        cloud: Runnable[In, Out] | None = None,
        tiers: Mapping[str, Runnable[In, Out]] | None = None,
        policy: Policy | None = None,
        edge_limits: Limits | None = None,
        cloud_limits: Limits | None = None,
        limits: Mapping[str, Limits] | None = None,
        edge_sampler: Callable[[float], Runnable[In, Out]] | None = None,
        samplers: Mapping[str, Callable[[float], Runnable[In, Out]]] | None = None,
        text: Callable[[Any], str] = text_of,
    ) -> None:
        chains = models_by_tier(edge, cloud, tiers)
        refuse_same(chains, same_model, lambda chain: chain.get_name(), kind="chain")
        self.policy = default_policy(tiers) if policy is None else policy
        check_policy(self.policy, chains)
        self.limits = limits_by_tier(chains, limits, edge_limits=edge_limits, cloud_limits=cloud_limits)
        self.text = text
        self.metadata = compat.versions()
        drawn = _samplers(chains, samplers, edge_sampler)
        self._tiers = {name: TierChain(chain, drawn.get(name)) for name, chain in chains.items()}

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return config_specs(self._tiers)

    @override
    def invoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        return run_chain(self, input, config, self._call(input, kwargs).answer)

    @override
    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        return await arun_chain(self, input, config, self._call(input, kwargs).aanswer)

    @override
    def stream(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Out]:
        yield from stream_chain(self, input, config, self._call(input, kwargs).chunks)

    @override
    async def astream(
        self, input: In, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Out]:
        async with aclosing(astream_chain(self, input, config, self._call(input, kwargs).achunks)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _call(self, inputs: In, kwargs: Mapping[str, Any]) -> ChainCall[Out]:
        refuse_misplaced(kwargs)
        return ChainCall(
            policy=self.policy,
            limits=self.limits,
            tiers=self._tiers,
            text=self.text,
            inputs=inputs,
            kwargs=kwargs,
        )


def _samplers(
    tiers: Collection[str],
    samplers: Mapping[str, Callable[[float], Chain]] | None,
    edge_sampler: Callable[[float], Chain] | None,
) -> dict[str, Callable[[float], Chain]]:
    """The samplers by tier."""
    given = {} if edge_sampler is None else {"edge": edge_sampler}
    if edge_sampler is not None and samplers:
        msg = "edge_sampler is given beside samplers: expected one of them"
        raise PolicyError(msg)
    given |= samplers or {}
    if unknown := sorted(set(given) - set(tiers)):
        msg = f"a sampler for {', '.join(unknown)}: expected some of {', '.join(tiers)}, as samplers={{...}}"
        raise PolicyError(msg)
    return given


class TierChain:
    """A tier's chain, and the same chain at a temperature if it can be sampled."""

    def __init__(self, chain: Chain, sampler: Callable[[float], Chain] | None) -> None:
        self.chain, self.sampler = chain, sampler
        # Nothing is asked of the models inside but what the chain's author set.
        self.facts = ModelFacts(
            model=chain.get_name(),
            named=False,
            can_sample=sampler is not None,
            asks_logprobs=False,
            streams=False,
        )


@dataclass(slots=True, kw_only=True)
class ChainCall(RoutedCall[Out, Out]):
    """One call of a router between chains."""

    tiers: Mapping[str, TierChain]
    text: Callable[[Any], str]
    inputs: Any = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    begun: bool = False
    shown: bool = False

    def prepare(self, opened: Opened | None) -> tuple[Request, Dispatcher[Out]]:
        """See `RoutedCall`."""
        assert opened is not None  # only a chat model is also called inside a run that is not ours
        request = request_of(
            prompt_of(self.inputs),
            {name: tier.facts for name, tier in self.tiers.items()},
            options_of(opened.config, self.tiers),
            tags=tags_of(opened.config),
            reads=ReadOnce(self.reads),
        )
        models = {name: HostedChain(tier, self, opened) for name, tier in self.tiers.items()}
        at_once = opened.config.get("max_concurrency")
        return request, Dispatcher(models=models, fallback=LogprobFallback(), at_once=at_once)

    def reads(self, tier: str) -> Reading:
        """What is given to the chains; what they make of it is not known."""
        others = [sent_with(chain.chain) for name, chain in self.tiers.items() if name != tier]
        return read(self.inputs, self.kwargs, *map(list, others), as_sent=as_sent)

    def result(self, routed: Routed, record: dict[str, JSON]) -> Out:
        """See `RoutedCall`."""
        output: Out = routed.generation.raw
        return output

    def show(self, chunk: Out) -> Out:
        """See `RoutedCall`."""
        self.begun = True
        self.shown = self.shown or bool(chunk.content if isinstance(chunk, BaseMessage) else chunk)
        return chunk

    def end(self, routed: Routed, record: dict[str, JSON]) -> Iterable[Out]:
        """See `RoutedCall`."""
        whole = not self.begun or (routed.decision.degraded and not self.shown)
        return (self.result(routed, record),) if whole else ()


class HostedChain(HostedRunnable[Out]):
    """A tier's chain in one call, as a child of the router's run."""

    __slots__ = ("_about", "_opened", "_tier")

    def __init__(self, tier: TierChain, call: ChainCall[Out], opened: Opened) -> None:
        self.facts, self._tier, self._about, self._opened = tier.facts, tier, call, opened

    def _work(self, call: ModelCall) -> tuple[Any, Any, RunnableConfig, Mapping[str, Any], AnswerListener]:
        if call.role == "prompt":
            msg = (
                "a chain takes its own input, not a signal's prompt: route the chat model with ChatConfRoute"
            )
            raise SignalUnavailableError(msg)
        if call.note is not None:
            msg = "the policy says something to the model beside the conversation, and a chain has no place for it: route the chat model (ChatConfRoute)"
            raise PolicyError(msg)
        sampler, chain = self._tier.sampler, self._tier.chain
        if call.temperature is not None and sampler is not None:
            chain = sampler(call.temperature)
        listener, config = AnswerListener(), self._opened.child(*TAGS[call.role])
        if call.role != "final":
            gate = listener.gate = self._about.gate(draft=call.role == "draft", streamed=call.streamed)
            config = gate.config(config)
        callbacks = cast("BaseCallbackManager", config.get("callbacks")).copy()
        callbacks.add_handler(listener, inherit=True)
        config["callbacks"] = callbacks
        return chain, self._about.inputs, config, self._about.kwargs, listener

    def _read(
        self, answer: Any, call: ModelCall, listener: AnswerListener, latency_s: float
    ) -> list[Generation]:
        if listener.gate is not None:
            listener.gate.answers = (answer,)
        generation = listener.generation(answer, self._about.text(answer), latency_s)
        if call.role != "final":
            return [generation]
        if isinstance(answer, (str, BaseMessage)) or answer is None:
            return [with_wordless_answer(generation)]
        # A value of the chain's own is an answer, whatever its text.
        return [replace(generation, answer=str(answer))]


class AnswerListener(BaseCallbackHandler):
    """What the language models inside a chain said of their answers, for this call alone."""

    run_inline = True

    def __init__(self) -> None:
        self.answers: list[Generation] = []
        self.gate: Gate | None = None
        self._lock = threading.Lock()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Keep the first answer of the run."""
        answer = response.generations[0][0] if response.generations and response.generations[0] else None
        if isinstance(answer, ChatGeneration):
            with self._lock:
                self.answers.append(_scored_by_text(to_generation(answer.message)))

    def of_all(self, read: Callable[[Generation], tuple[T, ...] | None]) -> tuple[T, ...] | None:
        """One field of all models in order; None if one of them returned none: its part would go unjudged."""
        every = [read(answer) for answer in self.answers]
        if not every or None in every:
            return None
        return tuple(value for values in every if values is not None for value in values)

    def generation(self, output: object, text: str, latency_s: float) -> Generation:
        """The chain's answer as the core sees it, billed for all models together."""
        usages = [answer.usage for answer in self.answers if answer.usage is not None]
        models = [answer.model for answer in self.answers if answer.model]
        tokens = self.of_all(lambda answer: answer.tokens)
        return Generation(
            text=text,
            logprobs=self.of_all(lambda answer: answer.logprobs),
            # Every model counts, and a parser may have rewritten the last one's text: its tokens are named if they spell it.
            tokens=tokens if tokens is not None and "".join(tokens).strip() == text.strip() else None,
            top_logprobs=self.of_all(lambda answer: answer.top_logprobs),
            usage=sum(usages, Usage()) if usages else None,
            finish=self.answers[-1].finish if self.answers else "unknown",
            model=models[-1] if models else None,
            latency_s=latency_s,
            from_cache=bool(self.answers) and all(answer.from_cache for answer in self.answers),
            raw=output,
        )


def _scored_by_text(answer: Generation) -> Generation:
    """An answer with the tokens of its own text alone: without its reasoning, and without any where they do not spell it."""
    if answer.tokens is None or answer.logprobs is None or not answer.text.strip():
        return answer  # a tool call is all that its tokens spell
    positions = answer_tokens(answer.tokens, answer.text)
    if positions is None:
        return replace(answer, logprobs=None, tokens=None, top_logprobs=None)
    part = slice(positions.start, positions.stop)
    return replace(
        answer,
        logprobs=answer.logprobs[part],
        tokens=answer.tokens[part],
        top_logprobs=None if answer.top_logprobs is None else answer.top_logprobs[part],
    )
