"""A signal's own prompt and its alternatives through LlamaIndex: what each model is sent, what is read back."""

import math

import pytest

from confroute import Cascade, record
from confroute.signals import PTrue, TokenMargin
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
    assert cloud.heard == []
