"""`ConfRouteMiddleware`: the model calls of an agent, routed between cheaper models and the agent's own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypeAlias, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from typing_extensions import override

from confroute.errors import MissingExtraError, PolicyError
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.requests import check_policy
from confroute.hosts.tiers import limits_by_tier
from confroute.models.resilience import Limits
from confroute.policy import Cascade, Ruling
from confroute.policy.rules import PrivateOnly
from confroute.types import TIERS, Request
from langchain_confroute.agent_budget import AgentBudget, farewell, spending, told
from langchain_confroute.chat import ChatConfRoute
from langchain_confroute.messages import KEY
from langchain_confroute.models import Model, chat_of

if TYPE_CHECKING:
    from langgraph.types import TracePolicy  # not in all versions

try:
    from langchain.agents.middleware.types import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
        PrivateStateAttr,
    )
    from langgraph.channels.untracked_value import UntrackedValue
    from langgraph.types import Command
except ImportError as error:
    raise MissingExtraError(extra="agents", needed_for="ConfRouteMiddleware") from error

Step: TypeAlias = Literal["select", "digest", "final"]
STEPS: tuple[Step, ...] = ("select", "digest", "final")
_ROUTERS = 16


class ConfRouteState(AgentState[Any]):
    """What the agent's thread, and this run of it, have used of the cloud so far."""

    confroute_cloud_calls: NotRequired[Annotated[int, PrivateStateAttr]]
    confroute_cloud_tokens: NotRequired[Annotated[int, PrivateStateAttr]]
    confroute_cloud_usd: NotRequired[Annotated[float, PrivateStateAttr]]
    confroute_run_calls: NotRequired[Annotated[int, UntrackedValue, PrivateStateAttr]]
    confroute_run_tokens: NotRequired[Annotated[int, UntrackedValue, PrivateStateAttr]]
    confroute_run_usd: NotRequired[Annotated[float, UntrackedValue, PrivateStateAttr]]


class _Routed(ModelRequest[Any]):
    """A request whose model is a router; a model that another middleware puts in its place becomes the router's cloud.

    Otherwise a fallback listed after this middleware would answer past its policy, private text included.
    """

    # No field: requests are traced and copied by their fields.
    around: Callable[[Any], Any]

    @classmethod
    def of(cls, request: ModelRequest[Any], around: Callable[[Any], Any]) -> _Routed:
        """The request, with `around` its model and around every other."""
        given = {one.name: getattr(request, one.name) for one in fields(ModelRequest)}
        return cls(**{**given, "model": around(request.model)})._with(around)

    def _with(self, around: Callable[[Any], Any]) -> _Routed:
        object.__setattr__(self, "around", around)  # the class warns of assignments
        return self

    @override
    def override(self, **overrides: Any) -> ModelRequest[Any]:
        model = overrides.get("model")
        if model is not None and not isinstance(chat_of(model), ChatConfRoute):
            overrides["model"] = self.around(model)
        return cast("_Routed", super().override(**overrides))._with(self.around)


def _cheaper(edge: Model | str | None, tiers: Mapping[str, Model | str] | None) -> dict[str, Model | str]:
    """The models before the agent's own by tier, from whichever of the two forms was given."""
    if (edge is None) is not bool(tiers):
        msg = "expected either edge or tiers={'edge': ..., 'mid': ...}, the models before the agent's own, cheapest first"
        raise PolicyError(msg)
    return {TIERS[0]: edge} if edge is not None else dict(tiers or {})


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


def _furthest(messages: Sequence[BaseMessage], tiers: Sequence[str]) -> str:
    """The latest of the tiers that answered in this tool loop; the first where none did."""
    records = [m.response_metadata.get(KEY) for m in _turn(messages) if isinstance(m, AIMessage)]
    routes = {record.get("route") for record in records if isinstance(record, dict)}
    return next((tier for tier in reversed(tiers) if tier in routes), tiers[0])


class ConfRouteMiddleware(AgentMiddleware[ConfRouteState, Any, Any]):
    """Sends the model calls of an agent to a cheaper model where its answer can be trusted.

    ``create_agent(cloud, tools, middleware=[ConfRouteMiddleware(edge, policy=...)])``: the agent's own model is the last tier,
    which is named as in the policy: "cloud" by default.
    Every call is one of `ChatConfRoute`: tools and `response_format` are asked for in each provider's form, an edge
    call of a tool is kept only if it fits, the decision stands in the message's ``response_metadata["confroute"]``, in
    LangGraph's custom stream and in `confroute.record()`. A model that other middleware puts in the agent's place, listed before or
    after this one, is the cloud of that call. What a run's `Runtime.context` says of routing is read; see `RoutingContext`.

    Parameters
    ----------
    edge : chat model, bound chat model, or name for `init_chat_model`
    tiers : mapping of str to such a model
        In place of `edge`: the tiers before the agent's own model, one or more by name, cheapest first.
    policy : Cascade
        The uncalibrated `Cascade` of these tiers if not given.
    steps : mapping of {"select", "digest", "final"} to Cascade or str
        Another policy, or a tier, for one kind of step; see `step_of`. What `policy` keeps private stays private in every step.
    sticky : bool
        Whether a tool loop in which a later tier than the first has answered stays there. Read from the messages since the user's
        last, so that it holds across processes and checkpoints and keeps no state here.
    budget : AgentBudget or None
        What a run or a thread may use of the last tier.
    cloud_tools : tuple of str
        Tools whose calls are taken from the agent's own model alone.
    edge_limits, cloud_limits : Limits
    limits : mapping of str to Limits
        By tier, in place of `edge_limits` and `cloud_limits`.
    keep_logprobs : bool
    trace_policy : TracePolicy or None
        What the span of this middleware's hook records, such as ``TracePolicy(process_inputs=omit_payload)`` for no messages; None:
        LangChain's own default (`configure_trace_policy`). The models' spans are the models' own.

    Raises
    ------
    PolicyError
        A step or a tier that does not exist, a policy that is no `Cascade` or is for other tiers, or both of `edge` and `tiers`.
    MissingExtraError
        `langchain` is not installed.

    Examples
    --------
    >>> from langchain.agents import create_agent
    >>> from langchain_confroute.testing import ScriptedChat
    >>> routed = ConfRouteMiddleware(ScriptedChat.of("4", logprob=-0.01), budget=AgentBudget(calls=3))
    >>> agent = create_agent(ScriptedChat.of("four"), middleware=[routed])
    >>> agent.invoke({"messages": [("user", "2 + 2?")]})["messages"][-1].text
    '4'
    """

    state_schema = ConfRouteState

    def __init__(
        self,
        edge: Model | str | None = None,
        *,
        tiers: Mapping[str, Model | str] | None = None,
        policy: Cascade | None = None,
        steps: Mapping[str, Cascade | str] | None = None,
        sticky: bool = True,
        budget: AgentBudget | None = None,
        cloud_tools: tuple[str, ...] = (),
        edge_limits: Limits | None = None,
        cloud_limits: Limits | None = None,
        limits: Mapping[str, Limits] | None = None,
        keep_logprobs: bool = False,
        trace_policy: TracePolicy | None = None,
    ) -> None:
        super().__init__()
        if trace_policy is not None:
            self.trace_policy = trace_policy
        self._cheaper = _cheaper(edge, tiers)
        self.policy = policy if policy is not None else Cascade(tiers=(*self._cheaper, TIERS[-1]))
        self.steps: dict[str, Cascade | str] = dict(steps or {})
        self._check()
        private = tuple(PrivateOnly(rule) for rule in self.policy.rules)
        self._policies = {
            name: replace(step, rules=(*private, *step.rules))
            for name, step in self.steps.items()
            if isinstance(step, Cascade)
        }
        self.sticky, self.budget = sticky, budget
        self._settings: dict[str, Any] = {
            "cloud_tools": cloud_tools,
            "keep_logprobs": keep_logprobs,
            "limits": limits_by_tier(
                self.policy.tiers, limits, edge_limits=edge_limits, cloud_limits=cloud_limits
            ),
        }
        self._routers: OrderedDict[tuple[int, Cascade], ChatConfRoute] = OrderedDict()
        self._fallback = LogprobFallback()

    def _check(self) -> None:
        """Refuse steps and policies that could not route a call."""
        for name, value in [("policy", self.policy), *self.steps.items()]:
            if name not in (*STEPS, "policy"):
                msg = f"steps has {name!r}: expected some of {', '.join(STEPS)}"
                raise PolicyError(msg)
            if isinstance(value, Cascade):
                check_policy(value, (*self._cheaper, self.policy.tiers[-1]))
            elif name == "policy" or value not in self.policy.tiers:
                or_tier = "" if name == "policy" else f", or one of {', '.join(self.policy.tiers)}"
                msg = f"{name} is {value!r}: expected a Cascade{or_tier}"
                raise PolicyError(msg)

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Route one model call."""
        ended = self._ended(request)
        return ended or self._accounted(request, handler(self._routed(request)))

    @override
    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ExtendedModelResponse[Any]:
        """Route one model call."""
        ended = self._ended(request)
        return ended or self._accounted(request, await handler(self._routed(request)))

    def _spent(self, request: ModelRequest[Any]) -> str | None:
        return self.budget.spent(cast("Mapping[str, Any]", request.state)) if self.budget else None

    def _ended(self, request: ModelRequest[Any]) -> ExtendedModelResponse[Any] | None:
        """What stands in the place of a call for which there is no budget; None where a model is asked.

        Raises
        ------
        BudgetSpentError
        """
        budget, why = self.budget, self._spent(request)
        if budget is None or why is None or budget.on_budget == "edge":
            return None
        if budget.on_budget == "raise":
            raise budget.error(cast("Mapping[str, Any]", request.state))
        return ExtendedModelResponse(model_response=ModelResponse(result=[farewell(why)]))

    def _routed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        step = step_of(request.messages, tools=bool(request.tools))
        chosen = self.steps.get(step, self.policy)
        policy = self._policies.get(step, self.policy)
        spent = self._spent(request)
        if spent is not None:
            request = request.override(system_message=told(request.system_message, spent))
        ruling = self._ruling(request, step, chosen, spent)
        if ruling is not None:
            # Before the policy's own rules; one that keeps text private still comes first.
            policy = replace(policy, rules=(_Steer(ruling), *policy.rules))
        return _Routed.of(request, lambda model: self._router(model, policy))

    def _ruling(
        self, request: ModelRequest[Any], step: Step, chosen: object, spent: str | None
    ) -> Ruling | None:
        tiers = self.policy.tiers
        if spent is not None:
            return Ruling(rule="budget", tier=tiers[0], reason=f"{spent}: {tiers[0]} answers")
        if isinstance(chosen, str):
            return Ruling(rule="step", tier=chosen, reason=f"step {step!r} goes to {chosen}")
        if self.sticky and (tier := _furthest(request.messages, tiers)) != tiers[0]:
            return Ruling(rule="sticky", tier=tier, reason=f"this tool loop was answered by {tier} before")
        return None

    def _router(self, last: Any, policy: Cascade) -> ChatConfRoute:
        """The router around the agent's model; those that were used last are kept, since making one costs."""
        key = (id(last), policy)
        try:
            found = self._routers.get(key)
        except TypeError:  # a rule or signal of the user's own that cannot be hashed
            return self._made(last, policy)
        # An id may be given to another object once its first owner is gone.
        if found is None or found.tiers[policy.tiers[-1]] is not last:
            found = self._routers[key] = self._made(last, policy)
            while len(self._routers) > _ROUTERS:
                self._routers.popitem(last=False)
        return found

    def _made(self, last: Any, policy: Cascade) -> ChatConfRoute:
        tiers = {**self._cheaper, policy.tiers[-1]: last}
        router = ChatConfRoute(tiers=tiers, policy=policy, **self._settings)
        router.remember_with(self._fallback)
        return router

    def _accounted(
        self, request: ModelRequest[Any], response: ModelResponse[Any]
    ) -> ExtendedModelResponse[Any]:
        """The response, with what run and thread have used of the last tier by now."""
        records = [m.response_metadata.get(KEY) for m in response.result if isinstance(m, AIMessage)]
        steps = [
            step
            for record in records
            if record
            for step in record["steps"]
            if step["tier"] == self.policy.tiers[-1]
        ]
        update = spending(cast("Mapping[str, Any]", request.state), steps, self.budget)
        command: Command[Any] | None = Command(update=update) if update else None
        return ExtendedModelResponse(model_response=response, command=command)
