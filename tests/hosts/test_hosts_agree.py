"""One policy object decides identically under sync, async, `Router`, LangChain and LlamaIndex, whole and streamed."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from llama_index.core.llms import ChatMessage

from confroute import (
    Cascade,
    ConfrouteError,
    Gate,
    KeepPrivate,
    Limits,
    Message,
    Request,
    Router,
    SelfConsistency,
    SemanticEntropy,
    Threshold,
    Tier,
    TokenLogprob,
    record,
)
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.policy import TierThreshold
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
NONE = {"edge": ONCE, "mid": ONCE, "cloud": ONCE}
TEXTS = ("4", "5", "four", "It is 4.", "the private salary is 4")

logprob = st.one_of(st.none(), st.sampled_from([-0.01, -0.2, -0.8, -3.0, float("nan"), 0.5]))
fault = st.one_of(
    st.none(), st.none(), st.none(), st.sampled_from([ConnectionError("refused"), ValueError("bad")])
)
replies = st.builds(Reply, text=st.sampled_from([*TEXTS, ""]), logprob=logprob, fault=fault)
samples = st.lists(st.builds(Reply, text=st.sampled_from(TEXTS), logprob=logprob), min_size=1, max_size=5)
questions = st.sampled_from(["What is 2 + 2?", "Name a tree.", "What is my salary?"])


@st.composite
def policies(draw, tiers=("edge", "cloud")):
    """Any cascade: one to three gates with thresholds, grey zones and thresholds by tier, rules, and every choice of words."""
    kinds = draw(st.permutations(["logprob", "consistency", "entropy"]))[: draw(st.integers(1, 3))]
    step = draw(st.integers(1, 3))
    made = {
        "logprob": lambda: TokenLogprob(statistic=draw(st.sampled_from(["mean", "max", "quantile", "sum"]))),
        "consistency": lambda: SelfConsistency(n=3, step=step),
        "entropy": lambda: SemanticEntropy(n=4, step=step),
    }
    gates = []
    for kind in kinds:
        low, value, high = sorted(
            draw(st.lists(st.sampled_from([0.0, 0.1, 0.34, 0.5, 0.9, 1.0]), min_size=3, max_size=3))
        )
        grey = draw(st.sampled_from([None, (low, high)]))
        own = [TierThreshold(tier=tier, threshold=Threshold(value=high)) for tier in tiers[1:-1]]
        by_tier = tuple(draw(st.sampled_from([(), own])))
        gates.append(Gate(signal=made[kind](), threshold=Threshold(value=value), grey=grey, by_tier=by_tier))
    return Cascade(
        tiers=tiers,
        gates=tuple(gates),
        rules=draw(st.sampled_from([(), (KeepPrivate(patterns=("salary",)),)])),
        on_no_signal=draw(st.sampled_from(["cloud", "edge", "raise"])),
        on_edge_error=draw(st.sampled_from(["cloud", "raise"])),
        on_cloud_error=draw(st.sampled_from(["raise", "edge"])),
        returns=draw(st.sampled_from(["draft", "majority"])),
    )


def finished(awaitable):
    """The result of a coroutine; `asyncio.run` would take away the loop that pytest-asyncio has still to close."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def outcome(send):
    """What a way of sending led to, without times: the text and the decision, or the error."""
    with record() as decisions:
        try:
            text = send()
        except (ConfrouteError, ConnectionError, ValueError) as error:
            return type(error).__name__
    assert len(decisions) == 1
    told = decisions[0].to_dict()
    told.pop("latency_s")
    told.pop("run_id", None)
    for step in told["steps"]:
        step.pop("latency_s")
    # Each host counts a prompt's tokens in its own way.
    told.pop("usage")
    for step in told["steps"]:
        step["usage"] = step["usage"] and step["usage"]["output_tokens"]
    return text, told


class Ways:
    """Every way to send one question under one policy between the same scripts."""

    def __init__(self, policy, question, replies, drawn):
        """Keep what each way builds its own models from."""
        self.policy, self.question, self.replies, self.drawn = policy, question, replies, drawn

    def models(self):
        """Fresh scripts: they move on with each call."""
        return {
            tier: ScriptedModel([reply], samples=self.drawn if tier != "cloud" else (), name=f"{tier}-model")
            for tier, reply in self.replies.items()
        }

    def settings(self, models):
        """Two models by their own arguments, more of them as tiers."""
        limits = dict.fromkeys(models, ONCE)
        return {
            **(models if len(models) == 2 else {"tiers": models}),
            "limits": limits,
            "policy": self.policy,
        }

    def core(self):
        """The core without a host: its request and calls."""
        models = self.models()
        tiers = {name: Tier(name=name, model=model.name) for name, model in models.items()}
        request = Request(messages=(Message(role="user", text=self.question),), tiers=tiers)
        return request, ScriptedCalls(models=models)

    def sync(self):
        """`run`."""
        request, calls = self.core()
        return run(self.policy, request, calls.call(request), NONE).generation.text

    def aio(self):
        """`arun`."""
        request, calls = self.core()
        return finished(arun(self.policy, request, calls.acall(request), NONE)).generation.text

    def streamed(self):
        """`run_stream`."""
        request, calls = self.core()
        return list(run_stream(self.policy, request, calls.call(request), calls.stream(request), NONE))[
            -1
        ].generation.text

    def astreamed(self):
        """`arun_stream`."""
        request, calls = self.core()

        async def last():
            items = arun_stream(self.policy, request, calls.acall(request), calls.astream(request), NONE)
            return [item async for item in items][-1].generation.text

        return finished(last())

    def chat(self):
        """LangChain's router."""
        models = {name: ScriptedChat(script=model, model=model.name) for name, model in self.models().items()}
        return ChatConfRoute(**self.settings(models))

    def llm(self):
        """LlamaIndex's router."""
        models = {name: ScriptedLLM(model=model) for name, model in self.models().items()}
        return ConfRouteLLM(**self.settings(models))

    def router(self):
        """The router without a host."""
        return Router(**self.settings(self.models()))

    def plain(self):
        """`ask`."""
        return self.router().ask(self.question).text

    def plain_async(self):
        """`aask`."""
        return finished(self.router().aask(self.question)).text

    def plain_stream(self):
        """`stream`."""
        return "".join(self.router().stream(self.question))

    def plain_astream(self):
        """`astream`."""

        async def texts():
            return "".join([text async for text in self.router().astream(self.question)])

        return finished(texts())

    def langchain(self):
        """`invoke`."""
        return self.chat().invoke([HumanMessage(self.question)]).text

    def langchain_async(self):
        """`ainvoke`."""
        return finished(self.chat().ainvoke([HumanMessage(self.question)])).text

    def langchain_stream(self):
        """`stream`."""
        return "".join(chunk.text for chunk in self.chat().stream([HumanMessage(self.question)]))

    def llamaindex(self):
        """`chat`."""
        return self.llm().chat([ChatMessage(role="user", content=self.question)]).message.content

    def llamaindex_async(self):
        """`achat`."""
        return finished(self.llm().achat([ChatMessage(role="user", content=self.question)])).message.content

    def llamaindex_stream(self):
        """`stream_chat`."""
        chunks = self.llm().stream_chat([ChatMessage(role="user", content=self.question)])
        return "".join(chunk.delta or "" for chunk in chunks)


@given(policies(), questions, replies, samples, replies)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_hosts_agree(policy, question, edge, drawn, cloud):
    """Sixteen ways, one decision: route, stage, evidence, reason, steps and answer, or the same error."""
    agree(Ways(policy, question, {"edge": edge, "cloud": cloud}, drawn))


@given(policies(("edge", "mid", "cloud")), questions, replies, replies, samples, replies)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_hosts_agree_on_three_tiers(policy, question, edge, middle, drawn, cloud):
    """The same with a tier between them, and with thresholds of its own."""
    agree(Ways(policy, question, {"edge": edge, "mid": middle, "cloud": cloud}, drawn))


def agree(ways):
    """Every way leads to what the first one leads to."""
    expected = outcome(ways.sync)
    whole = ("aio", "plain", "plain_async", "langchain", "langchain_async", "llamaindex", "llamaindex_async")
    for name in whole:
        assert outcome(getattr(ways, name)) == expected, name
    if not isinstance(expected, str) and all(reply.fault is None for reply in ways.replies.values()):
        streams = ("streamed", "astreamed", "plain_stream", "plain_astream")
        for name in (*streams, "langchain_stream", "llamaindex_stream"):
            assert outcome(getattr(ways, name)) == expected, name


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(policies(), questions, replies, samples, replies)
@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
def test_hosts_agree_at_length(policy, question, edge, drawn, cloud):
    """The same, many more times."""
    test_hosts_agree.hypothesis.inner_test(policy, question, edge, drawn, cloud)
