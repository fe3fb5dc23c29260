"""A signal's own prompt and its alternatives through LlamaIndex: what each model is sent, what is read back."""

import math

import pytest

from confroute import Cascade, record
from confroute.signals import OptionProbability, PTrue, TokenMargin
from confroute.testing import Reply, ScriptedModel
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

TOP = ((("A", math.log(0.6)), ("B", math.log(0.2))),)


def edge_says(prompt):
    """A letter to the signal's prompt, an answer to the caller's."""
    if "(A) True" in prompt:
        return Reply(text="A", logprob=math.log(0.6), top_logprobs=TOP)
    return Reply(text="Paris", logprob=-0.1, top_logprobs=TOP)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("signal", "expected"), [(PTrue(), 0.25), (TokenMargin(), 0.6)])
async def test_the_edge_is_asked_and_its_alternatives_are_read(kind, signal, expected):
    """The signal's value comes back through the host, and the cloud hears nothing."""
    edge, cloud = ScriptedModel(edge_says), ScriptedModel(["Lyon"])
    llm = ConfRouteLLM(
        edge=ScriptedLLM(model=edge), cloud=ScriptedLLM(model=cloud), policy=Cascade.of(signal, 0.9)
    )
    with record() as decisions:
        answer = (
            await llm.acomplete("Capital of France?")
            if kind == "async"
            else llm.complete("Capital of France?")
        )
    assert answer.text == "Paris"
    assert decisions[0].uncertainty == pytest.approx(expected)
    assert cloud.calls == []


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_options_probability_is_read_from_the_first_tokens_alternatives(kind):
    """1 - 0.6/0.8 of the two letters; prose before the letter goes to the cloud, with the reason."""
    question = "Which is the capital?\nA. Paris\nB. Lyon"
    for text, route in (("A", "edge"), ("The answer is A", "cloud")):
        reply = Reply(text=text, logprob=math.log(0.6), top_logprobs=TOP * len(text.split()))
        llm = ConfRouteLLM(
            edge=ScriptedLLM(model=ScriptedModel([reply])),
            cloud=ScriptedLLM(model=ScriptedModel(["B"])),
            policy=Cascade.of(OptionProbability(), 0.3),
        )
        with record() as decisions:
            await llm.acomplete(question) if kind == "async" else llm.complete(question)
        assert decisions[0].route == route
        if route == "edge":
            assert decisions[0].uncertainty == pytest.approx(0.25)
        else:
            assert "first token" in decisions[0].skipped["option_probability"]
