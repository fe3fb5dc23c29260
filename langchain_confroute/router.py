"""`ConfidenceRouter`: two whole chains behind the interface of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, TypeVar, cast

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from typing_extensions import override

from confroute.decision import Routed
from confroute.errors import PolicyError
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.flow import Policy
from confroute.models.resilience import Limits
from confroute.policy import Cascade
from confroute.text_extraction import texts_in
from confroute.types import Message, Request, Tier
from langchain_confroute._chains import Chain, ChainCalls
from langchain_confroute._events import aannounce, announce
from langchain_confroute._messages import to_core
from langchain_confroute._request import build_plain, check_tiers, config_specs
from langchain_confroute._run import Opened, arun_chain, astream_chain, run_chain, stream_chain
from langchain_confroute._tiers import same_model

In = TypeVar("In")
Out = TypeVar("Out")


def text_of(output: object) -> str:
    """The text of a chain's output: a message's own, a string as it is, anything else as Python writes it.

    Examples
    --------
    >>> text_of("yes"), text_of({"answer": 4})
    ('yes', "{'answer': 4}")
    """
    return str(output.text) if isinstance(output, BaseMessage) else str(output)


def prompt_of(given: object) -> tuple[Message, ...]:
    """A chain's input as a conversation: messages as they are, a mapping by its values."""
    if isinstance(given, PromptValue):
        return to_core(given.to_messages())
    if isinstance(given, BaseMessage):
        return to_core([given])
    if isinstance(given, (list, tuple)) and given and all(isinstance(m, (BaseMessage, tuple)) for m in given):
        return to_core(convert_to_messages(list(given)))
    if isinstance(given, Mapping):
        return tuple(message for value in given.values() for message in prompt_of(value))
    return (Message(role="user", text=str(given), beside="" if isinstance(given, str) else texts_in(given)),)


class ConfidenceRouter(Runnable[In, Out]):
    """Answers with one of two chains: the edge's where it can be trusted, the cloud's where not.

    Parameters
    ----------
    edge, cloud : Runnable
        Any chains of the same input: prompt, model, parser and whatever else.
    policy : Policy
        The same object that serves `ChatConfRoute`.
    edge_limits, cloud_limits : Limits
    edge_sampler : callable, optional
        The edge chain at a given temperature, for policies that draw samples. Without it there are none.
    text : callable
        The text of a chain's output, by which answers are compared.

    Raises
    ------
    PolicyError
        Edge and cloud are the same chain, or the policy names other tiers.

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
        edge: Runnable[In, Out],
        cloud: Runnable[In, Out],
        policy: Policy | None = None,
        edge_limits: Limits | None = None,
        cloud_limits: Limits | None = None,
        edge_sampler: Callable[[float], Runnable[In, Out]] | None = None,
        text: Callable[[Any], str] = text_of,
    ) -> None:
        if same_model(edge, cloud):
            msg = "edge and cloud are the same chain: routing between them decides nothing"
            raise PolicyError(msg)
        self.policy = Cascade() if policy is None else policy
        check_tiers(self.policy)
        self.edge, self.cloud = edge, cloud
        self.limits = {"edge": edge_limits or Limits(), "cloud": cloud_limits or Limits()}
        self.edge_sampler, self.text = edge_sampler, text
        self._chains: dict[str, Chain] = {"edge": edge, "cloud": cloud}
        self._tiers = {
            "edge": Tier(name="edge", model=edge.get_name(), can_sample=edge_sampler is not None),
            "cloud": Tier(name="cloud", model=cloud.get_name(), can_sample=False),
        }

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return config_specs()

    @override
    def invoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        def body(opened: Opened) -> Out:
            request, calls = self._prepared(input, opened, kwargs)
            routed = run(self.policy, request, calls.call, self.limits)
            announce(routed.decision, opened)
            return cast("Out", routed.generation.raw)

        return run_chain(self, input, config, body)

    @override
    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        async def body(opened: Opened) -> Out:
            request, calls = self._prepared(input, opened, kwargs)
            routed = await arun(self.policy, request, calls.acall, self.limits)
            await aannounce(routed.decision, opened)
            return cast("Out", routed.generation.raw)

        return await arun_chain(self, input, config, body)

    @override
    def stream(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Out]:
        def body(opened: Opened) -> Iterator[Out]:
            request, calls = self._prepared(input, opened, kwargs)
            begun = False
            with closing(run_stream(self.policy, request, calls.call, calls.stream, self.limits)) as items:
                for item in items:
                    if not isinstance(item, Routed):
                        begun = True
                        yield item
                        continue
                    announce(item.decision, opened)
                    if not begun:
                        yield item.generation.raw

        yield from stream_chain(self, input, config, body)

    @override
    async def astream(
        self, input: In, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Out]:
        async def body(opened: Opened) -> AsyncIterator[Out]:
            request, calls = self._prepared(input, opened, kwargs)
            begun = False
            async with aclosing(
                arun_stream(self.policy, request, calls.acall, calls.astream, self.limits)
            ) as items:
                async for item in items:
                    if not isinstance(item, Routed):
                        begun = True
                        yield item
                        continue
                    await aannounce(item.decision, opened)
                    if not begun:
                        yield item.generation.raw

        async with aclosing(astream_chain(self, input, config, body)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _prepared(self, given: In, opened: Opened, kwargs: Mapping[str, Any]) -> tuple[Request, ChainCalls]:
        request = build_plain(prompt_of(given), opened.config, tiers=self._tiers, beside=texts_in(kwargs))
        calls = ChainCalls(
            chains=self._chains,
            sampler=self.edge_sampler,
            text=self.text,
            given=given,
            opened=opened,
            kwargs=kwargs,
        )
        return request, calls
