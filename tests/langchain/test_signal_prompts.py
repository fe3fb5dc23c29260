"""A signal's own prompt and its alternatives through LangChain: what each model is sent, what is read back."""

import math

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from confroute import Cascade, record
from confroute.signals import OptionProbability, PTrue, TokenEntropy, TokenMargin
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

TOP = ((("A", math.log(0.6)), ("B", math.log(0.2))),)


def edge_says(prompt):
    """A letter to the signal's prompt, an answer to the caller's."""
    if "(A) True" in prompt:
        return Reply(text="A", logprob=math.log(0.6), top_logprobs=TOP)
    return Reply(text="Paris", logprob=-0.1, top_logprobs=TOP)


def router(signal, threshold=0.5):
    """A router over two scripted models, and the models."""
    edge = ScriptedChat(script=ScriptedModel(edge_says), model="edge")
    cloud = ScriptedChat(script=ScriptedModel(["Lyon"]), model="cloud")
    return ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(signal, threshold)), edge, cloud


async def call(kind, model, messages):
    """One call of either kind."""
    return await model.ainvoke(messages) if kind == "async" else model.invoke(messages)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_p_true_is_asked_of_the_edge_alone(kind):
    """One extra call, of the edge, without the caller's stop; the cloud hears nothing."""
    model, edge, cloud = router(PTrue())
    messages = [SystemMessage("Be brief."), HumanMessage("Capital of France?")]
    with record() as decisions:
        answer = await call(kind, model.bind(stop=["!"]), messages)
    assert answer.text == "Paris"
    assert decisions[0].uncertainty == pytest.approx(0.25)
    assert [step.kind for step in decisions[0].steps] == ["draft", "prompt"]
    assert edge.seen[1]["stop"] is None
    assert "Be brief." in edge.seen[1]["messages"][0].text
    assert cloud.seen == []


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_alternatives_are_asked_for_where_a_signal_reads_them(kind):
    """Entropy and margin are read from the provider's alternatives."""
    for signal, expected in ((TokenMargin(), 0.6), (TokenEntropy(), None)):
        model, _, _ = router(signal, 9.0 if expected is None else 0.9)
        with record() as decisions:
            await call(kind, model, "Capital of France?")
        assert decisions[0].stage == "draft", decisions[0].reason
        if expected is not None:
            assert decisions[0].uncertainty == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_options_probability_is_read_from_the_first_tokens_alternatives(kind):
    """1 - 0.6/0.8 of the two letters; prose before the letter goes to the cloud, with the reason."""
    question = "Which is the capital?\nA. Paris\nB. Lyon"
    for text, route in (("A", "edge"), ("The answer is A", "cloud")):
        reply = Reply(text=text, logprob=math.log(0.6), top_logprobs=TOP * len(text.split()))
        model = ChatConfRoute(
            edge=ScriptedChat(script=ScriptedModel([reply]), model="edge"),
            cloud=ScriptedChat(script=ScriptedModel(["B"]), model="cloud"),
            policy=Cascade.of(OptionProbability(), 0.3),
        )
        with record() as decisions:
            await call(kind, model, question)
        assert decisions[0].route == route
        if route == "edge":
            assert decisions[0].uncertainty == pytest.approx(0.25)
        else:
            assert "first token" in decisions[0].skipped["option_probability"]
