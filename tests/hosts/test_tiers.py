"""Any number of tiers in every host: how they are given, and what holds for each of them."""

from __future__ import annotations

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.tools import tool
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.llms import ChatMessage
from llama_index_instrumentation.dispatcher import instrument_tags

from confroute import Cascade, KeepPrivate, Limits, Router, SelfConsistency, TokenLogprob, record
from confroute.errors import PolicyError, RequestError
from confroute.models.breaker import Breaker
from confroute.testing import Reply, ScriptedModel, faults
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.middleware import AgentBudget, ConfRouteMiddleware
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

NAMES = ("small", "mid", "large")
ONCE = Limits(attempts=1)
POLICY = Cascade(gates=Cascade.of(TokenLogprob(), 0.3).gates, tiers=NAMES)
UNSURE, SURE = Reply(text="Rome perhaps", logprob=-1.0), Reply(text="Bern it is", logprob=-0.05)


def script(reply, name="m"):
    """A model of its own."""
    return ScriptedModel([reply], name=name)


def chat(reply, name="m", **settings):
    """Behind LangChain's interface."""
    return ScriptedChat(script=script(reply, name), model=name, **settings)


def chain(reply, name="m"):
    """A whole chain."""
    return chat(reply, name).bind(logprobs=True) | StrOutputParser()


def llm(reply, name="m"):
    """Behind LlamaIndex's interface."""
    return ScriptedLLM(model=script(reply, name))


# Each host: how it is made, a model for it, and how a question is asked of it.
HOSTS = {
    "Router": (Router, script, lambda router: router.ask("q").text),
    "ChatConfRoute": (ChatConfRoute, chat, lambda router: router.invoke("q").text),
    "ConfidenceRouter": (ConfidenceRouter, chain, lambda router: router.invoke("q")),
    "ConfRouteLLM": (ConfRouteLLM, llm, lambda router: router.complete("q").text),
}


@pytest.fixture(params=HOSTS)
def host(request):
    """Make a router of this host of three replies, and ask it."""
    kind, model, send = HOSTS[request.param]

    class Host:
        name = request.param
        one = staticmethod(model)
        make = staticmethod(kind)

        def tiers(self, *replies):
            return {name: model(reply, f"{name}-model") for name, reply in zip(NAMES, replies, strict=True)}

        def asked(self, *replies, **settings):
            router = kind(tiers=self.tiers(*replies), **{"policy": POLICY, **settings})
            return send(router), router

    return Host()


def test_tiers_have_any_names(host):
    """The second one of three keeps."""
    with record() as decisions:
        assert host.asked(UNSURE, SURE, "Bern")[0] == "Bern it is"
    assert (decisions[0].route, [step.tier for step in decisions[0].steps]) == ("mid", ["small", "mid"])


def test_the_default_policy_is_for_these_tiers(host):
    """Uncalibrated, and it says so."""
    router = host.make(tiers=host.tiers(SURE, SURE, "Bern"))
    assert router.policy == Cascade(tiers=NAMES)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda one: {"edge": one("a")}, "cloud not given: expected edge=... and cloud=..., or tiers="),
        (lambda one: {}, "edge and cloud not given"),
        (lambda one: {"tiers": {"small": one("a"), "large": one("b")}, "edge": one("c")}, "edge given beside tiers"),
        (lambda one: {"tiers": {"small": one("a")}}, "two or more"),
        (lambda one: {"tiers": {"auto": one("a"), "large": one("b")}, "policy": POLICY}, "other than 'auto'"),
        (lambda one: {"tiers": {"mid": one("a", "x"), "small": one("b", "y"), "large": one("c")}, "policy": POLICY},
         "the policy's tiers are small, mid and large: expected mid, small and large, those of this router, cheapest first"),
        (lambda one: {"tiers": {"small": one("a", "x"), "large": one("b", "y")}, "policy": POLICY}, "expected small and large"),
        (lambda one: {"edge": one("a", "x"), "cloud": one("b", "y"), "limits": {"mid": ONCE}}, "limits for 'mid': expected some of edge, cloud"),
        (
            lambda one: {"edge": one("a", "x"), "cloud": one("b", "y"), "limits": {"edge": ONCE}, "edge_limits": ONCE},
            "edge_limits is given beside limits",
        ),
        (
            lambda one: {"tiers": {"small": one("a", "x"), "large": one("b", "y")}, "cloud_limits": ONCE},
            "limits for 'cloud': expected some of small, large",
        ),
    ],
)  # fmt: skip
def test_what_names_no_tiers_is_refused_when_it_is_made(host, given, says):
    """In words, with both forms."""
    with pytest.raises(PolicyError, match=says):
        host.make(**given(host.one))


def test_no_two_tiers_are_one_model(host):
    """Of three, any two."""
    one = host.one("a", "x")
    with pytest.raises(PolicyError, match=r"small and large are the same (model|chain)"):
        host.make(tiers={"small": one, "mid": host.one("b", "y"), "large": one}, policy=POLICY)


def test_each_tier_has_its_own_limits_and_breaker(host):
    """A tier that fails is asked as often as its own limits say, and its breaker is opened for it alone."""
    down = Reply(fault=faults.server_error())
    limits = {"mid": Limits(attempts=2, wait_s=0.0, breaker=Breaker(failures=2)), "large": ONCE}
    with record() as decisions:
        _, router = host.asked(UNSURE, down, "Bern", limits=limits)
        HOSTS[host.name][2](router)
    first, second = decisions
    assert [(step.tier, step.attempts) for step in first.steps] == [("small", 1), ("mid", 2), ("large", 1)]
    assert "mid was not asked" in second.reason
    assert second.steps[1].error == "BreakerOpenError"


@pytest.mark.parametrize("name", ["Router", "ChatConfRoute", "ConfRouteLLM"])
def test_one_call_is_routed_to_any_tier(name):
    """By name; a name that is none is refused with those that are, and thresholds go by tier."""
    kind, model, _ = HOSTS[name]
    router = kind(tiers={n: model(UNSURE, f"{n}-model") for n in NAMES}, policy=POLICY)

    def send(**options):
        with record() as decisions:
            if name == "Router":
                router.ask("q", **options)
            elif name == "ChatConfRoute":
                router.invoke("q", {"configurable": {f"confroute_{k}": v for k, v in options.items()}})
            else:
                router.complete("q", **{f"confroute_{k}": v for k, v in options.items()})
        return decisions[0]

    assert (send(route="mid").route, send(route="auto").route) == ("mid", "large")
    assert send(threshold={"mid": 2.0}).route == "mid"
    with pytest.raises(RequestError, match="expected one of small, mid, large, auto"):
        send(route="edge")
    with pytest.raises(RequestError, match="a dictionary of either by tier"):
        send(threshold={"mid": {"token_logprob": "low"}})


def test_a_tier_that_cannot_call_tools_is_passed_over():
    """With a note; where the last cannot, nobody is left to answer, whatever its name."""

    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    class Wordy(ScriptedChat):
        def bind_tools(self, tools, **kwargs):
            raise NotImplementedError

    wordy = Wordy(script=script(SURE), model="wordy")
    router = ChatConfRoute(
        tiers={"small": chat(UNSURE, "s"), "mid": wordy, "large": chat("Bern", "l")}, policy=POLICY
    )
    with record() as decisions:
        router.bind_tools([add]).invoke("q")
    assert decisions[0].route == "large"
    assert "mid cannot do tools" in decisions[0].reason
    router = ChatConfRoute(
        tiers={"small": chat(SURE, "s"), "mid": chat(SURE, "m"), "large": wordy}, policy=POLICY
    )
    with pytest.raises(NotImplementedError):
        router.bind_tools([add])


def test_a_tier_that_reads_text_only_is_passed_over():
    """What a LlamaIndex model cannot see."""
    from llama_index.core.llms import MockLLM

    tiers = {"small": MockLLM(max_tokens=3), "mid": llm(SURE, "mid"), "large": llm("Bern", "large")}
    seen = ChatMessage(role="user", blocks=[TextBlock(text="q"), ImageBlock(url="https://example.org/a.png")])
    with record() as decisions:
        ConfRouteLLM(tiers=tiers, policy=POLICY).chat([seen])
    assert decisions[0].route == "mid"
    assert "small" not in [step.tier for step in decisions[0].steps]


def test_the_window_and_the_name_are_of_all_tiers():
    """Callers may rely on the window of the last."""
    tiers = {name: llm(SURE, f"{name}-model") for name in NAMES}
    router = ConfRouteLLM(tiers=tiers, policy=POLICY)
    assert router.metadata.context_window == tiers["large"].metadata.context_window
    assert router.metadata.model_name == "confroute(small-model->mid-model->large-model)"
    assert all(name in repr(router) for name in NAMES)
    assert router.to_dict()["tiers"]["mid"]["model_name"] == "mid-model"
    with pytest.raises(PolicyError, match="in_thread has edge: expected some of small, mid, large"):
        ConfRouteLLM(tiers=tiers, policy=POLICY, in_thread=("edge",))


async def test_a_blocking_tier_runs_beside_the_loop():
    """Whichever it is."""
    tiers = {name: llm(UNSURE, f"{name}-model") for name in NAMES}
    router = ConfRouteLLM(tiers=tiers, policy=POLICY, in_thread=("mid",), edge_in_thread=True)
    assert [router._child(one).in_thread for one in tiers.values()] == [True, True, False]
    assert (await router.acomplete("q")).text == "Rome perhaps"


def test_a_chat_router_of_tiers_shows_names_alone():
    """In its dump and its configurable fields."""
    router = ChatConfRoute(tiers={name: chat(SURE, f"{name}-model") for name in NAMES}, policy=POLICY)
    assert router.model_dump()["tiers"] == {name: f"{name}-model" for name in NAMES}
    assert "'small', 'mid', 'large'" in next(
        s.description for s in router.config_specs if s.id == "confroute_route"
    )
    other = router.model_copy(update={"tiers": {**router.tiers, "mid": chat(UNSURE, "other")}})
    assert other.invoke("q", {"configurable": {"confroute_route": "mid"}}).text == "Rome perhaps"
    assert router.invoke("q", {"configurable": {"confroute_route": "mid"}}).text == "Bern it is"


def test_chains_are_sampled_by_tier():
    """A chain without a sampler has no samples; the next gate's word is the chain's own."""
    policy = Cascade(gates=Cascade.of(SelfConsistency(n=2, step=2), 0.1).gates, tiers=NAMES)
    tiers = {name: chain(SURE, f"{name}-model") for name in NAMES}
    with record() as decisions:
        ConfidenceRouter(tiers=tiers, policy=policy, samplers={"mid": lambda t: chain(SURE, "again")}).invoke(
            "q"
        )
    assert decisions[0].route == "mid"
    assert "small/self_consistency" in decisions[0].skipped
    with pytest.raises(PolicyError, match="a sampler for edge: expected some of small, mid, large"):
        ConfidenceRouter(tiers=tiers, policy=policy, samplers={"edge": lambda t: tiers["mid"]})
    with pytest.raises(PolicyError, match="edge_sampler is given beside samplers"):
        ConfidenceRouter(tiers=tiers, samplers={"mid": chain}, edge_sampler=chain)


class TestMiddleware:
    """The agent's own model is the last tier."""

    def agent(self, *replies, policy=POLICY, names=("small", "mid"), **settings):
        """An agent with an addition, whose cheaper models give these replies."""

        @tool
        def add(a: int, b: int) -> int:
            """Add."""
            return a + b

        tiers = {name: chat(reply, f"{name}-model") for name, reply in zip(names, replies, strict=True)}
        routed = ConfRouteMiddleware(tiers=tiers, policy=policy, **settings)
        return create_agent(chat("Bern", "large-model"), [add], middleware=[routed])

    def routes(self, agent, text="Add 2 and 3."):
        """The tier of each model call."""
        with record() as decisions:
            agent.invoke({"messages": [HumanMessage(text)]})
        return [(decision.route, decision.rule) for decision in decisions]

    def test_a_tool_loop_stays_on_the_latest_tier_that_answered_in_it(self):
        """A weaker model would go on from what it could not have written."""
        assert self.routes(self.agent(UNSURE, SURE)) == [("mid", None), ("mid", "sticky")]
        assert self.routes(self.agent(UNSURE, UNSURE)) == [("large", None), ("large", "sticky")]
        steps = {"select": "mid", "digest": "small"}
        routes = self.routes(self.agent(UNSURE, UNSURE, steps=steps, sticky=False))
        assert routes == [("mid", "step"), ("small", "step")]
        routes = self.routes(self.agent(UNSURE, UNSURE, budget=AgentBudget(calls=1)))
        assert routes == [("large", None), ("small", "budget")]

    def test_private_text_stays_on_its_tier(self):
        """In every step."""
        policy = Cascade(
            gates=POLICY.gates, tiers=NAMES, rules=(KeepPrivate(patterns=("Add",), tier="mid", local=True),)
        )
        assert {route for route, _ in self.routes(self.agent(UNSURE, UNSURE, policy=policy))} == {"mid"}

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({}, "expected either edge or tiers="),
            ({"edge": chat(SURE), "tiers": {"mid": chat(SURE)}}, "expected either edge or tiers="),
            (
                {"tiers": {"mid": chat(SURE)}, "policy": POLICY},
                "expected mid and large, those of this router",
            ),
            ({"edge": chat(SURE), "steps": {"final": "mid"}}, "expected a Cascade, or one of edge, cloud"),
            ({"edge": chat(SURE), "steps": {"final": POLICY}}, "the policy's tiers are small, mid and large"),
            ({"edge": chat(SURE), "limits": {"mid": ONCE}}, "limits for 'mid'"),
        ],
    )
    def test_what_names_no_tier_is_refused_when_it_is_made(self, settings, says):
        """Not at the agent's first call."""
        with pytest.raises(PolicyError, match=says):
            ConfRouteMiddleware(**settings)


def test_calls_inside_instrument_tags_are_routed_to_any_tier():
    """LlamaIndex's own way to say it for all of them."""
    router = ConfRouteLLM(tiers={name: llm(UNSURE, f"{name}-model") for name in NAMES}, policy=POLICY)
    with record() as decisions, instrument_tags({"confroute": {"route": "mid"}}):
        router.complete("q")
    assert decisions[0].route == "mid"
