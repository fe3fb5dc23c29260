"""`ConfRouteLLM`: an edge and a cloud model, or more, as one LlamaIndex LLM."""

from __future__ import annotations

import warnings
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import TokenAsyncGen, TokenGen
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from confroute.decision import Routed
from confroute.errors import PolicyError, RequestError
from confroute.flow import Policy
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelFacts
from confroute.hosts.options import CallOptions, read_options, refuse_several, split_options
from confroute.hosts.provenance import warn_of_other_models
from confroute.hosts.requests import advertised_window, check_policy, request_of, with_one_retry_layer
from confroute.hosts.tiers import (
    check_members,
    default_policy,
    limits_by_tier,
    models_by_tier,
    refuse_same,
)
from confroute.models.resilience import Limits
from confroute.models.resolution import local_name
from confroute.observe.trace import CallId, is_nested
from confroute.policy import Cascade
from confroute.text_extraction import ReadOnce, read
from confroute.types import Reading
from llamaindex_confroute import compat
from llamaindex_confroute.context import (
    NO_PARTS,
    RETRIEVAL,
    Lineage,
    PromptParts,
    context_of,
    current_parts,
    parts_of,
    parts_of_text,
    read_node,
    with_parts,
)
from llamaindex_confroute.messages import checked, has_attachments, selections, to_core, user_turn
from llamaindex_confroute.models import ChildModel, same_model
from llamaindex_confroute.responses import (
    KEY,
    to_achunks,
    to_acompletions,
    to_chunks,
    to_completion,
    to_completions,
    to_response,
)
from llamaindex_confroute.routing import RoutedCall
from llamaindex_confroute.work import ChatCall, ChildCall, Sent, StructuredCall, ToolsCall

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse

C = TypeVar("C")
M = TypeVar("M", bound=BaseModel)
_dispatcher = get_dispatcher(__name__)
# From `predict_and_call` through the host to `chat_with_tools`.
_EXPECTED = "confroute_calls_expected"


class ConfRouteLLM(FunctionCallingLLM):
    """Answers each call on its cheapest model when its answer can be trusted, and on the next one when it cannot.

    Stands wherever an LLM of LlamaIndex stands: `Settings.llm`, query engines, chat engines, agents.

    Parameters
    ----------
    edge, cloud : LLM
        Two different models of any kind. Never changed, but for `callback_manager`: what is set on this object, as
        `Settings` and query engines do, is set on them, since the calls and their events are theirs. Rate limiters
        and retries of a provider belong to them as well.
    tiers : mapping of str to LLM, optional
        In place of `edge` and `cloud`: two or more by name, cheapest first. The policy names the same.
    policy : Policy
        Decides; the uncalibrated `Cascade` of these tiers if not given. Use a `Cascade` with a threshold fitted to your models.
    edge_limits, cloud_limits : Limits
        Time limit and retries of each. Give the edge model itself `max_retries=0` and a short time-out.
    limits : mapping of str to Limits, optional
        By tier, in place of `edge_limits` and `cloud_limits`.
    members : mapping of str to LLM, optional
        Further models that an `Ensemble` in the policy asks by these names; none of their answers is ever returned.
    edge_in_thread : bool
        Run the first tier's async calls in threads, for models whose `achat` blocks (`CustomLLM`, HuggingFaceLLM).
    in_thread : tuple of str
        Further tiers of which that holds.
    system_prompt : str, optional
        For all; LlamaIndex reads it from the outermost LLM only.
    callback_manager : CallbackManager, optional
    **kwargs
        The other fields of a LlamaIndex `LLM`, such as `output_parser`.

    Raises
    ------
    PolicyError
        A child that is not an LLM, two children that are the same model, a policy that cannot be used, or both forms of tiers or limits.

    Notes
    -----
    The decision of each call stands in `response.additional_kwargs["confroute"]` (of a stream: of its last chunk),
    in a `ConfRouteDecisionEvent`, and in `with confroute.record() as decisions:`, which also sees calls whose
    response a query engine or agent throws away.

    One call is routed otherwise by `chat(..., confroute_route="cloud", confroute_threshold=0.1)`, also by `confroute_tags`,
    `confroute_purpose` and `confroute_context`; all calls inside
    `with instrument_tags({"confroute": {"route": ..., "threshold": ..., "tags": [...]}}):` likewise. The route "auto" gives
    one call back to the policy.

    A stream shows a draft only once it is kept, cut into words, or from the moment a `Prefix` of the policy commits to it;
    an answer of the cloud, or of a route that was settled before any model was asked, is streamed as it comes.

    A prompt is taken to fit the edge if its estimated tokens and the edge's `num_output` do.

    Examples
    --------
    >>> from confroute import Cascade, TokenLogprob
    >>> from confroute.testing import Reply, ScriptedModel
    >>> from llamaindex_confroute.testing import ScriptedLLM
    >>> edge = ScriptedLLM(model=ScriptedModel([Reply(text="Lyon", logprob=-1.2)], name="small"))
    >>> cloud = ScriptedLLM(model=ScriptedModel(["Paris"], name="large"))
    >>> llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.3))
    >>> response = llm.complete("What is the capital of France?")
    >>> response.text, response.additional_kwargs["confroute"]["route"]
    ('Paris', 'cloud')
    """

    edge: LLM | None = Field(default=None, description="The cheap model, asked first.")
    cloud: LLM | None = Field(default=None, description="The model that answers what the edge may not.")
    tiers: dict[str, LLM] = Field(default_factory=dict, description="In their place, models by tier.")
    policy: Policy = Field(default_factory=Cascade, exclude=True)
    edge_limits: Limits = Field(default_factory=Limits, exclude=True)
    cloud_limits: Limits = Field(default_factory=Limits, exclude=True)
    limits: dict[str, Limits] = Field(default_factory=dict, exclude=True)
    members: dict[str, LLM] = Field(default_factory=dict, exclude=True, description="Models of an ensemble.")
    edge_in_thread: bool = Field(default=False, description="Run async calls of a blocking edge in threads.")
    in_thread: tuple[str, ...] = Field(default=(), description="Further tiers with such models.")

    # By id; each holds its model, so that the id stays its own.
    _children: dict[int, ChildModel] = PrivateAttr(default_factory=dict)
    _keeps_logprobs: bool = PrivateAttr(default=False)
    _lineage: Lineage = PrivateAttr(default_factory=Lineage)
    _fallback: LogprobFallback = PrivateAttr(default_factory=LogprobFallback)

    def __init__(
        self,
        edge: LLM | None = None,
        cloud: LLM | None = None,
        *,
        tiers: Mapping[str, LLM] | None = None,
        policy: Policy | None = None,
        edge_limits: Limits | None = None,
        cloud_limits: Limits | None = None,
        limits: Mapping[str, Limits] | None = None,
        members: Mapping[str, LLM] | None = None,
        edge_in_thread: bool = False,
        in_thread: Sequence[str] = (),
        system_prompt: str | None = None,
        callback_manager: CallbackManager | None = None,
        **kwargs: Any,
    ) -> None:
        _refuse_unknown(kwargs, type(self).model_fields)
        policy = default_policy(tiers) if policy is None else policy
        llms = models_by_tier(edge, cloud, tiers)
        _check(llms, policy, in_thread, members or {})
        super().__init__(
            edge=edge,
            cloud=cloud,
            tiers=dict(tiers or {}),
            policy=policy,
            edge_limits=edge_limits or Limits(),
            cloud_limits=cloud_limits or Limits(),
            limits=dict(limits or {}),
            members=dict(members or {}),
            edge_in_thread=edge_in_thread,
            in_thread=tuple(in_thread),
            system_prompt=system_prompt,
            callback_manager=callback_manager or CallbackManager([]),
            **kwargs,
        )
        self._warn_of_limiter()
        self._start(llms)
        if callback_manager is not None and callback_manager.handlers:
            self._hand_down(callback_manager)

    def _start(self, llms: Mapping[str, LLM]) -> None:
        """Hold what the models say of themselves against policy and limits, and listen for what is retrieved."""
        compat.listen(RETRIEVAL)
        facts = {name: self._child(llm).facts for name, llm in llms.items()}
        self._tier_limits(facts)
        warn_of_other_models(self.policy, facts)

    def _warn_of_limiter(self) -> None:
        if self.rate_limiter is not None:
            warnings.warn(
                "rate_limiter is read by the models, and this object makes no call itself: give one to each of them",
                stacklevel=3,
            )

    @classmethod
    def class_name(cls) -> str:
        """Stable name of this class."""
        return "ConfRouteLLM"

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # `Settings`, query engines and agents set it on the outermost LLM only, and the calls are the children's.
        if name == "callback_manager" and value is not None:
            self._hand_down(value)

    def _hand_down(self, manager: CallbackManager) -> None:
        for llm in (*self._llms.values(), *self.members.values()):
            llm.callback_manager = manager

    @property
    def _llms(self) -> dict[str, LLM]:
        """By tier, cheapest first."""
        return models_by_tier(self.edge, self.cloud, self.tiers)

    @field_serializer("edge", "cloud", "tiers")
    def _redacted(self, llm: LLM | dict[str, LLM] | None) -> dict[str, Any] | None:
        # Children hold keys. Names are enough to tell two routers apart in a cache of ingested nodes.
        if isinstance(llm, dict):
            return {name: self._redacted(one) for name, one in llm.items()}
        if llm is None:
            return None
        return {"class_name": llm.class_name(), "model_name": self._child(llm).facts.model}

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        # As above, and for both `repr` and `str`.
        for name, llm in {**self._llms, **self.members}.items():
            yield name, self._child(llm).facts.model
        yield "policy", self.policy

    @property
    def metadata(self) -> LLMMetadata:
        """What holds for all models, without I/O and before any route is known.

        The context window is the last tier's: what an earlier one cannot hold is sent there, and what it can hold may be escalated.
        """
        children = {name: self._child(llm) for name, llm in self._llms.items()}
        facts = {name: child.facts for name, child in children.items()}
        return LLMMetadata(
            context_window=advertised_window(facts) or DEFAULT_CONTEXT_WINDOW,
            num_output=max((one.max_output for one in facts.values() if one.max_output), default=-1),
            is_chat_model=True,
            is_function_calling_model=any(child.calls_functions for child in children.values()),
            model_name=f"confroute({'->'.join(one.model for one in facts.values())})",
            system_role=[*children.values()][-1].system_role,
        )

    def keeping_logprobs(self) -> ConfRouteLLM:
        """A copy whose final answers have log-probabilities as well: what another router judges it by."""
        copy = self.model_copy()
        copy._keeps_logprobs, copy._children = True, {}
        return copy

    def _child(self, llm: LLM) -> ChildModel:
        in_thread = (self.edge_in_thread or bool(self.in_thread)) and self._in_thread(llm)
        known = self._children.get(id(llm))
        if known is None or known.llm is not llm or known.in_thread != in_thread:
            known = self._children[id(llm)] = ChildModel(
                llm, in_thread=in_thread, keeps_logprobs=self._keeps_logprobs
            )
        return known

    def _in_thread(self, llm: LLM) -> bool:
        llms = self._llms
        blocking = {*self.in_thread, *[*llms][: int(self.edge_in_thread)]}
        return any(one is llm for name, one in llms.items() if name in blocking)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return to_response(*self._chat_call(messages, kwargs).run())

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return to_response(*await self._chat_call(messages, kwargs).arun())

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation in chunks; nothing of a rejected draft is ever among them."""
        call = self._chat_call(messages, kwargs)
        return to_chunks(call.stream(), call.finish)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation in chunks; nothing of a rejected draft is ever among them."""
        call = self._chat_call(messages, kwargs)
        return to_achunks(call.astream(), call.finish)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a text, by the child's `chat`: its `complete` loses the log-probabilities."""
        with with_parts(parts_of_text(prompt)):
            return to_completion(self.chat(user_turn(prompt), **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a text, by the child's `chat`: its `complete` loses the log-probabilities."""
        with with_parts(parts_of_text(prompt)):
            return to_completion(await self.achat(user_turn(prompt), **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a text in chunks."""
        with with_parts(parts_of_text(prompt)):
            return to_completions(self.stream_chat(user_turn(prompt), **kwargs))

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a text in chunks."""
        with with_parts(parts_of_text(prompt)):
            return to_acompletions(await self.astream_chat(user_turn(prompt), **kwargs))

    @compat.unspanned
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill a template and answer it; the policy sees question, context and existing answer apart."""
        with with_parts(parts_of(prompt, prompt_args, self.output_parser)):
            return super().predict(prompt, **prompt_args)

    @compat.unspanned
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Async form of `predict`."""
        with with_parts(parts_of(prompt, prompt_args, self.output_parser)):
            return await super().apredict(prompt, **prompt_args)

    @compat.unspanned
    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """`predict` token by token."""
        with with_parts(parts_of(prompt, prompt_args)):
            return super().stream(prompt, **prompt_args)

    @compat.unspanned
    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """`predict` token by token."""
        with with_parts(parts_of(prompt, prompt_args)):
            return await super().astream(prompt, **prompt_args)

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Tool specifications are in the provider's format, and the provider is not known before the route is.
        msg = "ConfRouteLLM has no request of its own: call chat_with_tools, which leaves it to the model that answers"
        raise NotImplementedError(
            msg
        )  # abstract in the host's class, and called by none of the methods below

    @_dispatcher.span
    def chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer, or ask for tools to be called; an edge's calls count only if they could be made."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        return to_response(*self._tools_call(tools, user_msg, chat_history, flags, kwargs).run())

    @_dispatcher.span
    async def achat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Async form of `chat_with_tools`."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        return to_response(*await self._tools_call(tools, user_msg, chat_history, flags, kwargs).arun())

    @_dispatcher.span
    def stream_chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """`chat_with_tools` in chunks; of an edge's answer, calls stand on the last one only."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        call = self._tools_call(tools, user_msg, chat_history, flags, kwargs)
        return to_chunks(call.stream(), call.finish)

    @_dispatcher.span
    async def astream_chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Async form of `stream_chat_with_tools`."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        call = self._tools_call(tools, user_msg, chat_history, flags, kwargs)
        return to_achunks(call.astream(), call.finish)

    @compat.unspanned
    def predict_and_call(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Make the calls of an answer; where the host would raise for want of a call, an edge's answer without one is replaced."""
        flags = (verbose, allow_parallel_tool_calls, error_on_no_tool_call, error_on_tool_error)
        expected = {**kwargs, **self._expected(error_on_no_tool_call)}
        return super().predict_and_call(tools, user_msg, chat_history, *flags, **expected)

    @compat.unspanned
    async def apredict_and_call(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Async form of `predict_and_call`."""
        flags = (verbose, allow_parallel_tool_calls, error_on_no_tool_call, error_on_tool_error)
        expected = {**kwargs, **self._expected(error_on_no_tool_call)}
        return await super().apredict_and_call(tools, user_msg, chat_history, *flags, **expected)

    def _expected(self, error_on_no_tool_call: bool) -> dict[str, Any]:
        # Without such a model the host takes a way that does not lead to `chat_with_tools`.
        needed = error_on_no_tool_call and self.metadata.is_function_calling_model
        return {_EXPECTED: True} if needed else {}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the calls of a response, as the model that wrote it does.

        Raises
        ------
        ValueError
            There are none and `error_on_no_tool_call` is set.
        """
        decision = response.additional_kwargs.get(KEY)
        llm = self._llms.get(decision["route"]) if decision else None
        if isinstance(llm, FunctionCallingLLM) and self._child(llm).calls_functions:
            return llm.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call)
        # A chunk of a stream that still runs carries no decision yet.
        calls = selections(response.message)
        if not calls and error_on_no_tool_call:
            msg = (
                "the response calls no tool: expected at least one call, or pass error_on_no_tool_call=False"
            )
            raise ValueError(msg)
        return calls

    def structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """Fill a template and answer it with a value; an edge's value counts only if it validates."""
        routed, _ = self._value_call(output_cls, prompt, llm_kwargs, prompt_args).run()
        return _value(routed, output_cls)

    async def astructured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """Async form of `structured_predict`."""
        routed, _ = await self._value_call(output_cls, prompt, llm_kwargs, prompt_args).arun()
        return _value(routed, output_cls)

    def stream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[M | FlexibleModel, None, None]:
        """`structured_predict` in growing values; an edge's value comes whole, once it is kept."""
        call = self._value_call(output_cls, prompt, llm_kwargs, prompt_args)

        def values() -> Generator[M | FlexibleModel, None, None]:
            shown = False
            with closing(call.stream()) as items:
                for item in items:
                    if not isinstance(item, Routed):
                        shown = True
                        yield item
                        continue
                    call.finish(item)
                    if not shown:
                        yield _value(item, output_cls)

        return values()

    async def astream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[M | FlexibleModel, None]:
        """Async form of `stream_structured_predict`."""
        call = self._value_call(output_cls, prompt, llm_kwargs, prompt_args)

        async def values() -> AsyncGenerator[M | FlexibleModel, None]:
            shown = False
            async with aclosing(call.astream()) as items:
                async for item in items:
                    if not isinstance(item, Routed):
                        shown = True
                        yield item
                        continue
                    call.finish(item)
                    if not shown:
                        yield _value(item, output_cls)

        return values()

    def _options(self, kwargs: Mapping[str, Any]) -> tuple[CallOptions, dict[str, Any]]:
        """The caller's options, which win over those of `instrument_tags`, and the arguments that are left for the models."""
        tiers = (*self._llms,)
        own, rest = split_options(kwargs, tiers=tiers, read_document=read_node)
        refuse_several(rest, "the call")
        if is_nested():
            # Around the outer router's call, and meant for it.
            return own, rest
        around = read_options(
            compat.tags().get("confroute"),
            place="instrument_tags' 'confroute'",
            tiers=tiers,
            read_document=read_node,
        )
        return own.over(around), rest

    def _chat_call(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> RoutedCall[ChatResponse]:
        options, rest = self._options(kwargs)
        parts = current_parts()
        kind = partial(ChatCall, messages=checked(messages), kwargs=rest, parsers=parts.parsers)
        return self._routed_call(kind, options, parts)

    def _tools_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None,
        chat_history: Sequence[ChatMessage] | None,
        flags: tuple[bool, bool, bool],
        kwargs: dict[str, Any],
    ) -> RoutedCall[ChatResponse]:
        expected = bool(kwargs.pop(_EXPECTED, False))
        options, rest = self._options(kwargs)
        last = user_turn(user_msg) if isinstance(user_msg, str) else [] if user_msg is None else [user_msg]
        verbose, parallel, required = flags
        kind = partial(
            ToolsCall,
            messages=checked([*(chat_history or ()), *last]),
            kwargs=rest,
            tools=tuple(tools or ()),  # OpenAI's integration takes None
            parallel=parallel,
            required=required,
            expected=expected,
            verbose=verbose,
        )
        return self._routed_call(kind, options)

    def _value_call(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None,
        args: Mapping[str, Any],
    ) -> RoutedCall[M | FlexibleModel]:
        options, rest = self._options(llm_kwargs or {})
        # The router's system prompt, since the host applies only that of the LLM it was called on.
        messages = checked(compat.with_system_prompt(self, prompt.format_messages(llm=self, **args)))
        kind = partial(
            StructuredCall,
            output_cls=output_cls,
            messages=messages,
            kwargs=rest,
            mode=self.pydantic_program_mode,
        )
        return self._routed_call(kind, options, parts_of(prompt, args))

    def _routed_call(
        self, kind: Callable[..., ChildCall[C]], options: CallOptions, parts: PromptParts = NO_PARTS
    ) -> RoutedCall[C]:
        """The request that the policy sees, and what its asks are answered by: each model with this call."""
        tiers = self._llms
        models = {name: kind(child=self._child(llm)) for name, llm in {**tiers, **self.members}.items()}
        facts = {name: models[name].facts for name in tiers}
        work = models[[*tiers][-1]]
        sent, attachments = work.sent, has_attachments(work.messages)
        call_id = CallId()
        request = request_of(
            to_core(work.messages),
            facts,
            options,
            extra=sent.text,
            max_tokens=work.kwargs.get("max_tokens"),
            lacks=_lacks(tiers, models, sent, attachments=attachments) if attachments or sent.tools else None,
            question=parts.question,
            context=context_of(parts),
            purpose=parts.purpose,
            tools=sent.tools,
            reads=ReadOnce(partial(_reads, models)),
            attachments=attachments,
            whole=sent.whole,
            begun_on=self._lineage.tier_of(parts.question, parts.existing_answer),
            run_id=str(call_id.run_id),
        )
        return RoutedCall(
            policy=self.policy,
            request=request,
            dispatcher=Dispatcher(models=models, fallback=self._fallback),
            limits=self._tier_limits(facts),
            lineage=self._lineage,
            span_id=compat.span_id(),
            call_id=call_id,
        )

    def _tier_limits(self, facts: Mapping[str, ModelFacts]) -> dict[str, Limits]:
        """The limits of all models; said once where one of them retries by itself."""
        given = limits_by_tier(
            facts, self.limits, edge_limits=self.edge_limits, cloud_limits=self.cloud_limits
        )
        return {tier: with_one_retry_layer(limits, facts[tier], tier) for tier, limits in given.items()}


def _reads(models: Mapping[str, ChildCall[Any]], tier: str) -> Reading:
    """Everything that would be sent to the models but that of `tier`."""
    return read(*(part for name, one in models.items() if name != tier for part in one.all_sent))


def _lacks(
    tiers: Iterable[str], models: Mapping[str, ChildCall[Any]], sent: Sent, *, attachments: bool
) -> dict[str, str]:
    """What a call needs and a tier's model cannot do."""
    lacks: dict[str, str] = {}
    for name in tiers:
        child = models[name].child
        if attachments and child.reads_text_only:
            lacks[name] = "images and files"
        if sent.tools and not child.calls_functions:
            lacks[name] = "tool calls"
    return lacks


def _value(routed: Routed, output_cls: type[M]) -> M:
    raw = routed.generation.raw
    if isinstance(raw, Exception):
        raise raw
    if not isinstance(raw, output_cls):
        return output_cls.model_validate_json(routed.generation.text)
    return raw


def _refuse_several(name: str, llm: LLM) -> None:
    fixed = getattr(llm, "additional_kwargs", None)
    try:
        refuse_several(fixed if isinstance(fixed, Mapping) else {}, name)
    except RequestError as error:
        raise PolicyError(str(error)) from error


def _check_members(members: Mapping[str, object], tiers: Collection[str]) -> None:
    check_members(members, tiers)
    for name, member in members.items():
        _refuse_other(f"member {name!r}", member)


def _refuse_other(name: str, given: object) -> None:
    """Refuse what is no LLM; names of models are what `Router` takes."""
    if isinstance(given, LLM):
        return
    local = local_name(given) if isinstance(given, str) else None
    example = "OpenAILike(model=...)" if local is None else f"LocalLLM(model={local!r})"
    msg = f"{name} is a {type(given).__name__}: expected a LlamaIndex LLM object, such as {example}"
    raise PolicyError(msg)


def _refuse_unknown(given: Mapping[str, object], known: Collection[str]) -> None:
    # pydantic would drop it: a misspelt `policy` must not leave the default one in its place.
    if unknown := sorted(set(given) - set(known)):
        msg = f"{', '.join(unknown)}: expected edge, cloud, tiers, policy, limits or a field of LLM"
        raise TypeError(msg)


def _check(
    llms: Mapping[str, LLM], policy: object, in_thread: Sequence[str], members: Mapping[str, LLM]
) -> None:
    _check_members(members, llms)
    if unknown := sorted(set(in_thread) - set(llms)):
        msg = f"in_thread has {', '.join(unknown)}: expected some of {', '.join(llms)}"
        raise PolicyError(msg)
    for name, llm in llms.items():
        _refuse_other(name, llm)
        _refuse_several(name, llm)
        if llm.system_prompt:
            warnings.warn(
                f"the {name} model has a system_prompt, which LlamaIndex reads from the outermost LLM only: "
                "give it to ConfRouteLLM(system_prompt=...)",
                stacklevel=3,
            )
    refuse_same(llms, same_model, lambda llm: ChildModel(llm).facts.model)
    check_policy(policy, llms)
    _check_members(members, llms)
