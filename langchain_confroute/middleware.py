"""`ConfRouteMiddleware`: the model calls of an agent, routed between an edge model and the agent's own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from typing_extensions import override

from confroute.errors import MissingExtraError, PolicyError
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.models.resilience import Limits
from confroute.policy import Cascade, Ruling
from confroute.policy.rules import PrivateOnly
from confroute.types import Request
from langchain_confroute.chat import ChatConfRoute
from langchain_confroute.messages import KEY
from langchain_confroute.models import Model

try:
    from langchain.agents.middleware.types import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
        PrivateStateAttr,
    )
    from langgraph.types import Command
except ImportError as error:
    raise MissingExtraError(extra="agents", needed_for="ConfRouteMiddleware") from error

Step: TypeAlias = Literal["select", "digest", "final"]
STEPS: tuple[Step, ...] = ("select", "digest", "final")
_ROUTERS = 16


class ConfRouteState(AgentState[Any]):
    """What the agent's thread has used of the cloud so far."""

    confroute_cloud_calls: NotRequired[Annotated[int, PrivateStateAttr]]
    confroute_cloud_tokens: NotRequired[Annotated[int, PrivateStateAttr]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadBudget:
    """How much of the cloud one thread of an agent may use; what is spent stands in its checkpoint.

    Attributes
    ----------
    calls : int or None
        Model calls that the cloud answers or is asked to.
    tokens : int or None
        Tokens, input and output, that the cloud bills. The call that passes the limit is still made.

    Raises
    ------
    PolicyError
        Neither is given, or one is below 0.
    """

    calls: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.calls, self.tokens) if value is not None]
        if not given or min(given) < 0:
            msg = f"calls is {self.calls} and tokens {self.tokens}: expected at least one of them, 0 or more"
            raise PolicyError(msg)

    def spent(self, state: Mapping[str, Any]) -> str | None:
        """Why no more may be used, or None."""
        for name, limit in (("calls", self.calls), ("tokens", self.tokens)):
            used = state.get(f"confroute_cloud_{name}", 0)
            if limit is not None and used >= limit:
                return f"the thread has used {used} of {limit} cloud {name}"
        return None


@dataclass(frozen=True, slots=True)
class _Steer:
    """A rule that says the same of every request."""

    ruling: Ruling

    def __call__(self, request: Request) -> Ruling:
        return self.ruling


def step_of(messages: Sequence[BaseMessage], *, tools: bool) -> Step:
    """What kind of step an agent's next model call is, by its messages alone.

    "select": tools are offered and none has answered since the user spoke; "digest": a tool has answered; "final": there
    is no tool left to call.

    Examples
    --------
    >>> step_of([HumanMessage("q")], tools=True)
    'select'
    >>> step_of([HumanMessage("q"), ToolMessage("4", tool_call_id="1")], tools=True)
    'digest'
    """
    if not tools:
        return "final"
    return "digest" if any(isinstance(message, ToolMessage) for message in _turn(messages)) else "select"


def _turn(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages after the user's last."""
    since: list[BaseMessage] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        since.append(message)
    return since


def _on_cloud(messages: Sequence[BaseMessage]) -> bool:
    """Whether an answer of this tool loop came from the cloud."""
    records = (m.response_metadata.get(KEY) for m in _turn(messages) if isinstance(m, AIMessage))
    return any(record.get("route") == "cloud" for record in records if isinstance(record, dict))


class ConfRouteMiddleware(AgentMiddleware[ConfRouteState, Any, Any]):
    """Sends the model calls of an agent to an edge model where its answer can be trusted.

    ``create_agent(cloud, tools, middleware=[ConfRouteMiddleware(edge, policy=...)])``: the agent's own model is the cloud.
    Every call is one of `ChatConfRoute`: tools and `response_format` are asked for in each provider's form, an edge
    call of a tool is kept only if it fits, the decision stands in the message's ``response_metadata["confroute"]``, in
    LangGraph's custom stream and in `confroute.record()`. Put it last in the list, next to the model, so that other
    middleware sees one model.

    Parameters
    ----------
    edge : chat model, bound chat model, or name for `init_chat_model`
    policy : Cascade
        The uncalibrated `Cascade()` if not given.
    steps : mapping of {"select", "digest", "final"} to Cascade, "edge" or "cloud"
        Another policy, or a fixed route, for one kind of step; see `step_of`. What `policy` keeps private stays private in every step.
    sticky : bool
        Whether a tool loop that the cloud has answered in stays on the cloud. Read from the messages since the user's
        last, so that it holds across processes and checkpoints and keeps no state here.
    budget : ThreadBudget or None
        When it is spent the edge answers, unless a private rule or the caller says otherwise.
    cloud_tools : tuple of str
        Tools whose calls are never taken from the edge.
    edge_limits, cloud_limits : Limits
    keep_logprobs : bool

    Raises
    ------
    PolicyError
        A step that does not exist, or a policy that is no `Cascade`.
    MissingExtraError
        `langchain` is not installed.

    Examples
    --------
    >>> from langchain.agents import create_agent
    >>> from langchain_confroute.testing import ScriptedChat
    >>> routed = ConfRouteMiddleware(ScriptedChat.of("4", logprob=-0.01), budget=ThreadBudget(calls=3))
    >>> agent = create_agent(ScriptedChat.of("four"), middleware=[routed])
    >>> agent.invoke({"messages": [("user", "2 + 2?")]})["messages"][-1].text
    '4'
    """

    state_schema = ConfRouteState

    def __init__(
        self,
        edge: Model | str,
        *,
        policy: Cascade | None = None,
        steps: Mapping[str, Cascade | Literal["edge", "cloud"]] | None = None,
        sticky: bool = True,
        budget: ThreadBudget | None = None,
        cloud_tools: tuple[str, ...] = (),
        edge_limits: Limits | None = None,
        cloud_limits: Limits | None = None,
        keep_logprobs: bool = False,
    ) -> None:
        super().__init__()
        self.policy = policy if policy is not None else Cascade()
        self.steps: dict[str, Cascade | Literal["edge", "cloud"]] = dict(steps or {})
        given: dict[str, object] = {"policy": self.policy, **self.steps}
        for name, value in given.items():
            if name not in (*STEPS, "policy"):
                msg = f"steps has {name!r}: expected some of {', '.join(STEPS)}"
                raise PolicyError(msg)
            if not isinstance(value, Cascade) and (name == "policy" or value not in ("edge", "cloud")):
                msg = f"{name} is {value!r}: expected a Cascade" + (
                    "" if name == "policy" else ", 'edge' or 'cloud'"
                )
                raise PolicyError(msg)
        private = tuple(PrivateOnly(rule) for rule in self.policy.rules)
        self._policies = {
            name: replace(step, rules=(*private, *step.rules))
            for name, step in self.steps.items()
            if isinstance(step, Cascade)
        }
        self.sticky, self.budget = sticky, budget
        limits = {"edge_limits": edge_limits, "cloud_limits": cloud_limits}
        self._settings: dict[str, Any] = {
            "edge": edge,
            "cloud_tools": cloud_tools,
            "keep_logprobs": keep_logprobs,
            **{name: value for name, value in limits.items() if value is not None},
        }
        self._routers: OrderedDict[tuple[int, Cascade], ChatConfRoute] = OrderedDict()
        self._fallback = LogprobFallback()

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Route one model call."""
        return self._accounted(request, handler(self._routed(request)))

    @override
    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ExtendedModelResponse[Any]:
        """Route one model call."""
        return self._accounted(request, await handler(self._routed(request)))

    def _routed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        step = step_of(request.messages, tools=bool(request.tools))
        chosen = self.steps.get(step, self.policy)
        policy = self._policies.get(step, self.policy)
        ruling = self._ruling(request, step, chosen)
        if ruling is not None:
            # Before the policy's own rules; one that keeps text private still comes first.
            policy = replace(policy, rules=(_Steer(ruling), *policy.rules))
        return request.override(model=self._router(request.model, policy))

    def _ruling(self, request: ModelRequest[Any], step: Step, chosen: object) -> Ruling | None:
        spent = self.budget.spent(cast("Mapping[str, Any]", request.state)) if self.budget else None
        if spent is not None:
            return Ruling(rule="budget", tier="edge", reason=f"{spent}: edge answers")
        if isinstance(chosen, str):
            return Ruling(rule="step", tier=chosen, reason=f"step {step!r} goes to {chosen}")
        if self.sticky and _on_cloud(request.messages):
            return Ruling(
                rule="sticky", tier="cloud", reason="this tool loop was answered by the cloud before"
            )
        return None

    def _router(self, cloud: Any, policy: Cascade) -> ChatConfRoute:
        """The router around the agent's model; those that were used last are kept, since making one costs."""
        key = (id(cloud), policy)
        try:
            found = self._routers.get(key)
        except TypeError:  # a rule or signal of the user's own that cannot be hashed
            return self._made(cloud, policy)
        # An id may be given to another object once its first owner is gone.
        if found is None or found.cloud is not cloud:
            found = self._routers[key] = self._made(cloud, policy)
            while len(self._routers) > _ROUTERS:
                self._routers.popitem(last=False)
        return found

    def _made(self, cloud: Any, policy: Cascade) -> ChatConfRoute:
        router = ChatConfRoute(cloud=cloud, policy=policy, **self._settings)
        router.remember_with(self._fallback)
        return router

    def _accounted(
        self, request: ModelRequest[Any], response: ModelResponse[Any]
    ) -> ExtendedModelResponse[Any]:
        """The response, with what the thread has used of the cloud by now."""
        records = [m.response_metadata.get(KEY) for m in response.result if isinstance(m, AIMessage)]
        steps = [step for record in records if record for step in record["steps"] if step["tier"] == "cloud"]
        if not steps:
            return ExtendedModelResponse(model_response=response)
        state = cast("Mapping[str, Any]", request.state)
        # Whatever else stands in a bill is a part of these two.
        billed = [bill["input_tokens"] + bill["output_tokens"] for step in steps if (bill := step["usage"])]
        calls = state.get("confroute_cloud_calls", 0) + len(steps)
        tokens = state.get("confroute_cloud_tokens", 0) + sum(billed)
        update = {"confroute_cloud_calls": calls, "confroute_cloud_tokens": tokens}
        return ExtendedModelResponse(model_response=response, command=Command(update=update))
