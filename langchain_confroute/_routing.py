"""One call of a chat router, from messages to the marked answer: whole or in chunks, sync or async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig, ensure_config

from confroute.decision import Routed
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.flow import Policy
from confroute.models.resilience import Limits
from confroute.text_extraction import texts_in
from confroute.types import Request
from langchain_confroute import _request
from langchain_confroute._answers import Ending, in_chunks, marked, without_logprobs
from langchain_confroute._calls import ChatCalls, Judge
from langchain_confroute._events import aannounce, announce
from langchain_confroute._run import Opened
from langchain_confroute._silent import SilentCalls
from langchain_confroute._tiers import TierModel
from langchain_confroute.logprobs import chunk_logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all calls of one router share.

    Attributes
    ----------
    made_from : tuple
        The router's settings: another tuple needs another plan.
    members : mapping of str to TierModel
        What an ensemble asks beside the tiers.
    judge : callable or None
        What to compare in a draft, and why it cannot be used, where that is more than its text.
    tools : bool
        Whether the models have to call tools.
    tool_names : frozenset of str
        Those that are offered.
    shape_text : str
        Every text of their definitions, or of the schema that is asked for.
    """

    made_from: tuple[Any, ...]
    tiers: Mapping[str, TierModel]
    policy: Policy
    limits: Mapping[str, Limits]
    members: Mapping[str, TierModel] = field(default_factory=dict)
    stop: list[str] | None = None
    tags: tuple[str, ...] = ()
    keep_logprobs: bool = False
    judge: Judge | None = None
    tools: bool = False
    tool_names: frozenset[str] = frozenset()
    shape_text: str = ""

    def serves(self, made_from: tuple[Any, ...]) -> bool:
        """Whether it was made from these very settings."""
        return all(map(is_, self.made_from, made_from))


@dataclass(slots=True, kw_only=True)
class ChatCall:
    """One call; its four methods are what `_run` wants as bodies."""

    plan: Plan
    messages: list[BaseMessage]
    stop: list[str] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, opened: Opened | None) -> AIMessage:
        """The marked answer."""
        request, calls = self._prepared(opened)
        routed = run(self.plan.policy, request, calls.call, self.plan.limits)
        return self._marked(routed, announce(routed.decision, opened))

    async def aanswer(self, opened: Opened | None) -> AIMessage:
        """Async form of `answer`."""
        request, calls = self._prepared(opened)
        routed = await arun(self.plan.policy, request, calls.acall, self.plan.limits)
        return self._marked(routed, await aannounce(routed.decision, opened))

    def chunks(self, opened: Opened | None) -> Iterator[AIMessageChunk]:
        """The answer in chunks, the decision with the last."""
        request, calls = self._prepared(opened)
        ending = Ending()
        with closing(
            run_stream(
                self.plan.policy, request, calls.call, calls.stream, self.plan.limits, scores=chunk_logprobs
            )
        ) as items:
            for item in items:
                if not isinstance(item, Routed):
                    chunk = ending.passed(self._shown(item, calls))
                    if chunk is not None:
                        yield chunk
                elif ending.begun:
                    yield ending.last(announce(item.decision, opened))
                else:
                    yield from in_chunks(self._marked(item, announce(item.decision, opened)))

    async def achunks(self, opened: Opened | None) -> AsyncIterator[AIMessageChunk]:
        """Async form of `chunks`."""
        request, calls = self._prepared(opened)
        ending = Ending()
        async with aclosing(
            arun_stream(
                self.plan.policy, request, calls.acall, calls.astream, self.plan.limits, scores=chunk_logprobs
            )
        ) as items:
            async for item in items:
                if not isinstance(item, Routed):
                    chunk = ending.passed(self._shown(item, calls))
                    if chunk is not None:
                        yield chunk
                elif ending.begun:
                    yield ending.last(await aannounce(item.decision, opened))
                else:
                    for word in in_chunks(self._marked(item, await aannounce(item.decision, opened))):
                        yield word

    def _prepared(self, opened: Opened | None) -> tuple[Request, ChatCalls]:
        plan = self.plan
        config: RunnableConfig = ensure_config() if opened is None else opened.config
        request = _request.build(
            self.messages,
            plan.tiers,
            config,
            tags=plan.tags,
            tools=plan.tools,
            tool_names=plan.tool_names,
            beside="\n".join(filter(None, (plan.shape_text, texts_in(self.kwargs, self.stop)))),
            whole=plan.judge is not None,
        )
        make: Callable[..., ChatCalls] = SilentCalls if opened is None else ChatCalls
        calls = make(
            tiers={**plan.tiers, **plan.members},
            messages=self.messages,
            opened=opened,
            stop=self.stop if self.stop is not None else plan.stop,
            kwargs=self.kwargs,
            judge=plan.judge,
        )
        return request, calls

    def _shown(self, chunk: AIMessage, calls: ChatCalls) -> AIMessage:
        return without_logprobs(chunk) if calls.unasked and not self.plan.keep_logprobs else chunk

    def _marked(self, routed: Routed, record: dict[str, Any]) -> AIMessage:
        ours = self.plan.tiers[routed.decision.route].asks_logprobs and not self.plan.keep_logprobs
        return marked(routed.generation.raw, record, drop_logprobs=ours)
