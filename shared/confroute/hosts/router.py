"""`Router`: two or more models and a policy, without a host framework.

::

    router = Router(
        edge="local:qwen2.5-coder-0.5b", cloud="openai:gpt-4o-mini", policy=load_policy("policy.json")
    )
    answer = router.ask("What is the capital of France?")
    answer.text, answer.decision.route
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from confroute.decision import Decision, Routed
from confroute.errors import RequestError
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.flow import Policy
from confroute.hosts.chat import ChatCall
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelFacts
from confroute.hosts.options import read_documents, read_options
from confroute.hosts.provenance import warn_of_other_models
from confroute.hosts.requests import check_policy, request_of, with_one_retry_layer
from confroute.hosts.text_host import TextHost, facts_of, lacking
from confroute.hosts.tiers import check_members, default_policy, limits_by_tier, models_by_tier, refuse_same
from confroute.hosts.tool_calls import tool_facts
from confroute.models.provider_answers import is_role, role_of
from confroute.models.resilience import Limits
from confroute.models.resolution import resolve
from confroute.models.text_model import Piece, TextModel, piece_logprobs
from confroute.policy import Cascade
from confroute.text_extraction import ReadOnce, merged
from confroute.types import Context, Message, Reading, Request, Thresholds

if TYPE_CHECKING:
    from typing import Self

Prompt: TypeAlias = "str | Sequence[Message | Mapping[str, str] | tuple[str, str]]"
Documents: TypeAlias = "Context | Sequence[str | tuple[str, float]]"
_UNCALIBRATED: Policy = Cascade()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Router:
    """Answers each question by one of its models, as a policy decides; notebooks and scripts need no framework for it.

    Parameters
    ----------
    edge, cloud : str or model
        Whatever `confroute.models.resolution.resolve` takes: a name ("local:qwen2.5-coder-0.5b", "openai:gpt-4o-mini"), a
        `TextModel`, a function, a chat model of LangChain or an LLM of LlamaIndex.
    policy : Policy
        The same object decides the same in every host. The uncalibrated `Cascade` of these tiers if not given.
    edge_limits, cloud_limits : Limits
        Time, attempts and breaker of each model's calls.
    tiers : mapping of str to model
        In place of `edge` and `cloud`: two or more models by name, cheapest first. The policy names the same.
    limits : mapping of str to Limits
        By tier, in place of `edge_limits` and `cloud_limits`.
    members : mapping of str to model
        Further models that an ensemble asks, by name.

    Raises
    ------
    PolicyError
        Two tiers are one model, something is not a model, the policy is for other tiers, or both forms of tiers or limits are given.
    MissingExtraError
        A package that a model needs is not installed.

    Examples
    --------
    >>> from confroute import TokenLogprob
    >>> from confroute.testing import Reply, ScriptedModel
    >>> router = Router(
    ...     edge=ScriptedModel([Reply(text="Rome?", logprob=-2.0)]),
    ...     cloud=lambda messages: "Paris",
    ...     policy=Cascade.of(TokenLogprob(), 0.3),
    ... )
    >>> answer = router.ask("What is the capital of France?")
    >>> answer.text, answer.decision.route, answer.decision.uncertainty
    ('Paris', 'cloud', 2.0)
    """

    edge: object = None
    cloud: object = None
    policy: Policy = _UNCALIBRATED
    edge_limits: Limits = field(default_factory=Limits)
    cloud_limits: Limits = field(default_factory=Limits)
    members: Mapping[str, object] = field(default_factory=dict)
    tiers: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, Limits] = field(default_factory=dict)
    _models: dict[str, tuple[TextModel, ModelFacts]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _limits: dict[str, Limits] = field(default_factory=dict, init=False, repr=False, compare=False)
    # What a model refuses once it is not asked for again.
    _fallback: LogprobFallback = field(default_factory=LogprobFallback, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tiers = models_by_tier(self.edge, self.cloud, self.tiers)
        if self.policy is _UNCALIBRATED:
            object.__setattr__(self, "policy", default_policy(self.tiers))
        check_policy(self.policy, tiers)
        check_members(self.members, tiers)
        limits = limits_by_tier(
            tiers, self.limits, edge_limits=self.edge_limits, cloud_limits=self.cloud_limits
        )
        for name, given in {**tiers, **self.members}.items():
            model = resolve(given)
            self._models[name] = model, facts_of(model)
        for tier, own in limits.items():
            self._limits[tier] = with_one_retry_layer(own, self._models[tier][1], tier)
        warn_of_other_models(self.policy, self._facts())
        refuse_same(
            {tier: (given, self._models[tier][0]) for tier, given in tiers.items()},
            lambda one, other: one[0] is other[0] or one[1] == other[1],
            lambda one: one[1].name,
        )

    @property
    def tier_names(self) -> tuple[str, ...]:
        """The tiers, cheapest first."""
        return tuple(self._limits)

    def _facts(self) -> dict[str, ModelFacts]:
        """What is known of each tier's model, cheapest first."""
        return {tier: self._models[tier][1] for tier in self._limits}

    def __repr__(self) -> str:
        # Models by their names alone: those of frameworks print keys and passwords.
        models = ", ".join(f"{name}={model.name!r}" for name, (model, _) in self._models.items())
        return f"Router({models}, policy={self.policy!r})"

    def ask(
        self,
        prompt: Prompt,
        *,
        route: str | None = None,
        threshold: Thresholds | None = None,
        tags: Collection[str] = (),
        purpose: str | None = None,
        question: str | None = None,
        context: Documents | None = None,
        question_id: str | None = None,
    ) -> Routed:
        """Answer a question, or go on with a conversation.

        Parameters
        ----------
        prompt : str or sequence of messages
            A question; or a conversation of `Message`, `{"role": ..., "content": ...}` or `(role, text)`, oldest first.
        route : str, optional
            The tier that has to answer; by default, and by "auto", the policy decides.
        threshold : float or mapping, optional
            In place of the policy's: a number for a policy of one signal, else by signal name; either under the name of a tier, for its
            drafts alone.
        tags : collection of str
            Labels that the policy's rules read.
        purpose : str, optional
            What the call is for, for policies that tell purposes apart.
        question : str, optional
            The question alone, where the prompt holds retrieved text too.
        context : Context or sequence of str or (str, float), optional
            What was retrieved: texts, or each with its score.
        question_id : str, optional
            Your own name of the question, which its decision keeps; not its text.

        Returns
        -------
        Routed
            `text` is the answer, `decision` says which model gave it, why, and at what cost.

        Raises
        ------
        RequestError
            An empty question, or an option that cannot be used.
        TierError
            No model answered that the policy allows to.
        """
        request, calls = self._opened(
            prompt,
            question,
            context,
            route=route,
            threshold=threshold,
            tags=tags,
            purpose=purpose,
            question_id=question_id,
        )
        return run(self.policy, request, calls.call, self._limits)

    async def aask(
        self,
        prompt: Prompt,
        *,
        route: str | None = None,
        threshold: Thresholds | None = None,
        tags: Collection[str] = (),
        purpose: str | None = None,
        question: str | None = None,
        context: Documents | None = None,
        question_id: str | None = None,
    ) -> Routed:
        """Async form of `ask`."""
        request, calls = self._opened(
            prompt,
            question,
            context,
            route=route,
            threshold=threshold,
            tags=tags,
            purpose=purpose,
            question_id=question_id,
        )
        return await arun(self.policy, request, calls.acall, self._limits)

    def stream(
        self,
        prompt: Prompt,
        *,
        route: str | None = None,
        threshold: Thresholds | None = None,
        tags: Collection[str] = (),
        purpose: str | None = None,
        question: str | None = None,
        context: Documents | None = None,
        question_id: str | None = None,
    ) -> TextStream:
        """Answer in parts, as soon as it is settled whose answer is given: nothing is shown of a draft that is not kept.

        Parameters and errors are those of `ask`. An answer that was drafted as a whole comes in one part; a policy with a
        `Prefix` lets a draft through while it is written.

        Returns
        -------
        TextStream
            Iterate over it for the texts; its `decision` is there once it has ended.
        """
        request, calls = self._opened(
            prompt,
            question,
            context,
            route=route,
            threshold=threshold,
            tags=tags,
            purpose=purpose,
            question_id=question_id,
        )
        return TextStream(
            run_stream(self.policy, request, calls.call, calls.stream, self._limits, scores=piece_logprobs)
        )

    def astream(
        self,
        prompt: Prompt,
        *,
        route: str | None = None,
        threshold: Thresholds | None = None,
        tags: Collection[str] = (),
        purpose: str | None = None,
        question: str | None = None,
        context: Documents | None = None,
        question_id: str | None = None,
    ) -> AsyncTextStream:
        """Async form of `stream`."""
        request, calls = self._opened(
            prompt,
            question,
            context,
            route=route,
            threshold=threshold,
            tags=tags,
            purpose=purpose,
            question_id=question_id,
        )
        return AsyncTextStream(
            arun_stream(self.policy, request, calls.acall, calls.astream, self._limits, scores=piece_logprobs)
        )

    async def achat(self, chat: ChatCall) -> Routed:
        """Answer a call in OpenAI's chat format, with its tools and settings; `confroute.hosts.chat.read_chat` reads one.

        Raises
        ------
        RequestError
            An empty question, or something that no model which may answer takes.
        TierError
            No model answered that the policy allows to.
        """
        request, calls = self._asked(chat)
        return await arun(self.policy, request, calls.acall, self._limits)

    def astream_chat(self, chat: ChatCall) -> AsyncGenerator[Piece | Routed, None]:
        """Answer such a call in parts as they come; the last item is the whole answer with its decision.

        An answer that was drafted as a whole comes in that item alone.
        """
        request, calls = self._asked(chat)
        return arun_stream(
            self.policy, request, calls.acall, calls.astream, self._limits, scores=piece_logprobs
        )

    def _reads(self, tier: str) -> Reading:
        """What the models but that of `tier` send besides the messages, as those of frameworks say."""
        others = [
            getattr(model, "reading", None) for name, (model, _) in self._models.items() if name != tier
        ]
        return merged(*filter(None, others))

    def _opened(
        self, prompt: Prompt, question: str | None, context: Documents | None, **given: object
    ) -> tuple[Request, Dispatcher[Piece]]:
        options = read_options(given, place="the call", tiers=self.tier_names)
        if question is not None or context is not None:
            options = replace(options, **_retrieved(question, context))
        return self._asked(ChatCall(messages=_messages(prompt), options=options))

    def _asked(self, chat: ChatCall) -> tuple[Request, Dispatcher[Piece]]:
        """What the policy sees of a call, and what makes the calls that it asks for."""
        facts = self._facts()
        if chat.sent is None:
            request = request_of(chat.messages, facts, chat.options, reads=self._reads)
        else:
            lacks = {tier: lacking(self._models[tier][0], chat) for tier in facts}
            request = request_of(
                chat.messages,
                facts,
                chat.options,
                extra=chat.extra,
                max_tokens=chat.max_tokens,
                lacks={tier: what for tier, what in lacks.items() if what is not None},
                reads=ReadOnce(lambda tier: merged(chat.reading, self._reads(tier))),
                tools=chat.named,
                attachments=chat.attachments,
                whole=chat.whole,
            )
        hosts = {name: TextHost(model, chat, own) for name, (model, own) in self._models.items()}
        return request, Dispatcher(models=hosts, fallback=self._fallback)


class _Ended:
    """What a stream has at its end."""

    __slots__ = ("_items", "_routed", "_shown")

    def __init__(self) -> None:
        self._routed: Routed | None = None
        self._shown = False

    @property
    def routed(self) -> Routed:
        """The whole answer and its decision.

        Raises
        ------
        RequestError
            The stream has not ended.
        """
        if self._routed is None:
            msg = "the stream has not ended: its decision is available after the last part"
            raise RequestError(msg)
        return self._routed

    @property
    def decision(self) -> Decision:
        """Which model answered, why, and at what cost; there once the stream has ended."""
        return self.routed.decision

    def _text(self, item: Piece | Routed) -> str:
        """What is to be shown: of the last item nothing, unless nothing was shown before it."""
        if isinstance(item, Piece):
            self._shown = self._shown or bool(item.text)
            return item.text
        self._routed = item
        return "" if self._shown else item.text


class TextStream(_Ended):
    """The parts of an answer as texts; `decision` is there once it has ended. Leaving it early ends the model's answer too."""

    __slots__ = ()

    def __init__(self, items: Generator[Piece | Routed, None, None]) -> None:
        super().__init__()
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while True:
            if text := self._text(next(self._items)):
                return text

    def close(self) -> None:
        """End the answer."""
        self._items.close()


class AsyncTextStream(_Ended):
    """Async form of `TextStream`."""

    __slots__ = ()

    def __init__(self, items: AsyncGenerator[Piece | Routed, None]) -> None:
        super().__init__()
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            if text := self._text(await anext(self._items)):
                return text

    async def aclose(self) -> None:
        """End the answer."""
        await self._items.aclose()


def _retrieved(question: str | None, context: Documents | None) -> dict[str, Any]:
    if not (question is None or isinstance(question, str)):
        msg = f"question is a {type(question).__name__}: expected a string"
        raise RequestError(msg)
    if not (context is None or isinstance(context, Context)):
        context = read_documents(context, place="context")
    return {"question": question, "context": context}


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (Message(role="user", text=prompt),)
    if isinstance(prompt, Iterable) and not isinstance(prompt, (bytes, Mapping)):
        return tuple(map(_message, prompt))
    msg = f"the prompt is a {type(prompt).__name__}: expected a text or a list of messages"
    raise RequestError(msg)


def _message(given: object) -> Message:
    if isinstance(given, Message):
        return given
    role, text = None, None
    more: dict[str, Any] = {}
    if isinstance(given, Mapping):
        more = tool_facts(given)
        role, text = given.get("role"), given.get("content")
    elif isinstance(given, tuple) and len(given) == 2:
        role, text = given
    if isinstance(role, str) and is_role(role) and isinstance(text, str):
        return Message(role=role_of(role), text=text, **more)
    # Without its words, which may be private.
    msg = (
        f"a message is a {type(given).__name__}: expected a Message, {{'role': 'user', 'content': a text}} or ('user', a text), "
        "with the role system, user, assistant or tool"
    )
    raise RequestError(msg)
