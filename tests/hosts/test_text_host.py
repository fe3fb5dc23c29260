"""A `TextModel` in the host layer: what each kind of ask sends to it."""

from __future__ import annotations

import pytest

from confroute import Cascade, Router, TokenLogprob
from confroute.asks import Draft, Final, Hidden, Prompt, Sample
from confroute.errors import PolicyError, SignalUnavailableError, TierError
from confroute.hosts.chat import ChatCall
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelCall
from confroute.hosts.text_host import TextHost, facts_of
from confroute.models.local import LocalTextModel
from confroute.models.openai import OpenAIModel
from confroute.models.resolution import resolve
from confroute.models.text_model import Piece
from confroute.testing import Reply, ScriptedModel
from confroute.types import Generation, Message

ASKED = (Message(role="user", text="2 + 2?"),)


def dispatcher(model):
    """Asks of "edge" go to the model."""
    return Dispatcher(
        models={"edge": TextHost(model, ChatCall(messages=ASKED), facts_of(model))},
        fallback=LogprobFallback(),
    )


@pytest.fixture
def heard():
    """A function that keeps what it is asked with."""
    calls = []

    def answer(messages, temperature, max_tokens, logprobs, top_logprobs):
        calls.append(([m.text for m in messages], temperature, max_tokens, logprobs, top_logprobs))
        return Generation(text="4")

    return answer, calls


@pytest.mark.parametrize(
    ("ask", "sent"),
    [
        (Final(tier="edge"), (["2 + 2?"], None, None, False, 0)),
        (Final(tier="edge", note="Sure?"), (["2 + 2?", "Sure?"], None, None, False, 0)),
        (Draft(tier="edge", top_logprobs=5), (["2 + 2?"], None, None, True, 5)),
        (Draft(tier="edge", note="Sure?"), (["2 + 2?", "Sure?"], None, None, True, 0)),
        (Sample(tier="edge", temperature=0.7), (["2 + 2?"], 0.7, None, False, 0)),
        (
            Prompt(
                tier="edge", messages=(Message(role="user", text="Is it?"),), max_tokens=3, top_logprobs=2
            ),
            (["Is it?"], None, 3, True, 2),
        ),
    ],
)
def test_each_ask_is_sent_as_it_is_meant(ask, sent, heard):
    """A final answer as the model is set up; evidence is asked for only where it is wanted."""
    answer, calls = heard
    (generation,) = dispatcher(resolve(answer)).call(ask)
    assert generation.text == "4"
    assert calls == [sent]


def test_several_samples_are_one_call_where_the_model_draws_them_itself():
    """Functions and frameworks' models are called once per sample."""
    assert not facts_of(resolve(lambda messages: "4")).answers_per_call
    for model in (OpenAIModel(model="m"), LocalTextModel(model="smollm2-135m"), ScriptedModel()):
        assert facts_of(model).answers_per_call


def test_windows_are_known_where_they_were_given():
    """Without asking or loading anything."""
    facts = facts_of(OpenAIModel(model="m", context_window=4096, max_tokens=96))
    assert (facts.context_window, facts.max_output) == (4096, 96)
    assert facts_of(LocalTextModel(model="smollm2-135m")).context_window is None


def test_facts_of_a_framework_s_model_are_the_framework_s():
    """Whether log-probabilities may be asked for, above all."""
    from langchain_core.language_models import FakeListChatModel

    facts = facts_of(resolve(FakeListChatModel(responses=["4"])))
    assert not facts.asks_logprobs
    assert not facts.answers_per_call


def test_a_model_elsewhere_has_no_hidden_states():
    """The signal is skipped, with the model's name."""
    with pytest.raises(SignalUnavailableError, match="scripted is not in this process"):
        dispatcher(ScriptedModel()).call(Hidden(tier="edge", layers=(0,)))


async def test_a_model_that_does_not_stream_gives_one_piece():
    """Then the whole answer, as every stream does."""
    host = TextHost(resolve(lambda messages: "It is 4."), ChatCall(messages=ASKED), facts_of(ScriptedModel()))
    call = ModelCall(role="final", streamed=True)
    for items in ([*host.stream(call)], [item async for item in host.astream(call)]):
        piece, whole = items
        assert (piece.text, whole.text) == ("It is 4.", "It is 4.")


def test_pieces_without_anything_are_left_out():
    """The first piece that is passed on ends all retries: it must be one that is shown, or measured."""

    class Hesitant(ScriptedModel):
        def stream(self, messages, **settings):
            yield Piece(text="")
            yield from super().stream(messages, **settings)

    model = Hesitant([Reply(text="It is 4.")])
    *pieces, whole = TextHost(model, ChatCall(messages=ASKED), facts_of(model)).stream(
        ModelCall(role="final", streamed=True)
    )
    assert [piece.text for piece in pieces] == ["It", " is", " 4."]
    assert (whole.text, whole.finish, whole.usage.output_tokens) == ("It is 4.", "stop", 3)


class Answering:
    """A user's own model, which answers whatever it was made with."""

    name, remote = "mine", False

    def __init__(self, answers):
        """Keep what it answers."""
        self.answers = answers

    def generate(self, messages, **settings):
        """Answer."""
        return self.answers

    async def agenerate(self, messages, **settings):
        """Answer."""
        return self.answers


async def asked(model, form):
    """What a router's call ended in whose edge or cloud is such a model."""
    router = Router(**model, policy=Cascade.of(TokenLogprob(), 0.25))
    if form == "whole":
        return router.ask("2 + 2?").text
    if form == "async":
        return (await router.aask("2 + 2?")).text
    if form == "stream":
        return "".join(router.stream("2 + 2?"))
    return "".join([text async for text in router.astream("2 + 2?")])


@pytest.mark.parametrize("form", ["whole", "async", "stream", "astream"])
@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("four", "mine returned a str: expected a tuple of Generation"),
        (None, "mine returned a NoneType: expected a tuple of Generation"),
        (("four",), "mine returned an answer that is a str: expected a tuple of Generation"),
    ],
)
@pytest.mark.parametrize("tier", ["edge", "cloud"])
async def test_a_model_that_answers_with_something_else_is_refused(tier, answers, said, form):
    """As a function is: as the edge it would fail at every call, and the cloud would answer and be paid for all of them."""
    other = ScriptedModel([Reply(text="4?", logprob=-3.0)])
    models = {"edge": other, "cloud": other, tier: Answering(answers)}
    with pytest.raises(PolicyError, match=said):
        await asked(models, form)


@pytest.mark.parametrize("form", ["whole", "async", "stream", "astream"])
async def test_no_answer_at_all_is_an_empty_answer(form):
    """Streamed as whole."""
    models = {"edge": ScriptedModel([Reply(text="4?", logprob=-3.0)]), "cloud": Answering(())}
    with pytest.raises(TierError, match="cloud returned an empty answer"):
        await asked(models, form)
