"""Asks become calls: how many, where, and what comes back."""

import asyncio
import threading

import pytest

from confroute.asks import Draft, Evidence, Final, Hidden, Prompt, Sample, Score, Tentative
from confroute.errors import SignalUnavailableError
from confroute.hosts.dispatch import Dispatcher, model_calls
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.types import Message

MESSAGES = (Message(role="user", text="Is it so?"),)


def wait(_tokens, _nats):
    """A watch that never decides."""
    return "wait"


def dispatcher(**models):
    """Of these models by tier."""
    return Dispatcher(models=models, fallback=LogprobFallback())


async def answers(made, ask, form):
    """What one of both forms of a call gives."""
    return await made.acall(ask) if form == "acall" else made.call(ask)


@pytest.mark.parametrize(
    ("ask", "facts", "expected"),
    [
        (
            Draft(tier="edge", top_logprobs=3, note="again"),
            {},
            [ModelCall(role="draft", logprobs=True, top_logprobs=3, note="again")],
        ),
        (
            Draft(tier="edge", top_logprobs=1),
            {"asks_logprobs": False},
            [ModelCall(role="draft", top_logprobs=1)],
        ),
        (Draft(tier="edge"), {"alternatives": 1}, [ModelCall(role="draft", logprobs=True, top_logprobs=1)]),
        (Tentative(tier="edge", watch=wait), {}, [ModelCall(role="draft", logprobs=True)]),
        (Final(tier="edge", note="again"), {"alternatives": 1}, [ModelCall(role="final", note="again")]),
        (
            Prompt(tier="edge", messages=MESSAGES, top_logprobs=5, max_tokens=1),
            {},
            [ModelCall(role="prompt", logprobs=True, top_logprobs=5, max_tokens=1, messages=MESSAGES)],
        ),
        (
            Sample(tier="edge", n=2, drawn=3, temperature=0.5),
            {},
            [ModelCall(role="sample", drawn=drawn, temperature=0.5) for drawn in (3, 4)],
        ),
        (
            Sample(tier="edge", n=2, drawn=3, temperature=0.5),
            {"answers_per_call": True},
            [ModelCall(role="sample", n=2, drawn=3, temperature=0.5)],
        ),
    ],
)
def test_calls_of_an_ask(ask, facts, expected):
    """Every kind of ask of a model."""
    assert model_calls(ask, ModelFacts(model="small", **facts)) == expected


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_only_the_tier_that_is_asked_answers(hosted, form):
    """One answer of it, with the time that it took."""
    edge, cloud = hosted(), hosted(model="large")
    (answer,) = await answers(dispatcher(edge=edge, cloud=cloud), Final(tier="cloud"), form)
    assert (answer.text, answer.latency_s > 0) == ("a0", True)
    assert (len(edge.calls), len(cloud.calls)) == (0, 1)


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_samples_are_drawn_at_the_same_time(hosted, where, form):
    """In their order, each in a copy of the caller's context."""
    where.set("here")
    model = hosted(meets=3 if form == "call" else 0)
    drawn = await answers(dispatcher(edge=model), Sample(tier="edge", n=3, drawn=2), form)
    assert [answer.text for answer in drawn] == ["a2", "a3", "a4"]
    assert model.most == 3
    assert {place for _, place in model.places} == {"here"}


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_no_more_calls_at_once_than_the_caller_allows(hosted, form):
    """Group after group, in order."""
    model = hosted()
    made = Dispatcher(models={"edge": model}, fallback=LogprobFallback(), at_once=2)
    drawn = await answers(made, Sample(tier="edge", n=5), form)
    assert [answer.text for answer in drawn] == ["a0", "a1", "a2", "a3", "a4"]
    assert model.most <= 2


@pytest.mark.parametrize(
    ("form", "facts"),
    [("call", {"concurrent": False}), ("call", {"thread_safe": False}), ("acall", {"concurrent": False})],
)
async def test_samples_in_turn(hosted, form, facts):
    """Of a model that can be asked only once at a time, or not in several threads."""
    model = hosted(**facts)
    drawn = await answers(dispatcher(edge=model), Sample(tier="edge", n=3), form)
    assert [answer.text for answer in drawn] == ["a0", "a1", "a2"]
    assert model.most == 1
    assert {thread for thread, _ in model.places} == {threading.current_thread()}


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_samples_in_one_call(hosted, form):
    """Of a model that gives several answers a call."""
    model = hosted(answers_per_call=True)
    drawn = await answers(dispatcher(edge=model), Sample(tier="edge", n=3, drawn=1), form)
    assert [answer.text for answer in drawn] == ["a1", "a2", "a3"]
    assert len(model.calls) == 1
    assert len({answer.latency_s for answer in drawn}) == 1


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_a_sample_that_fails_fails_the_ask(hosted, form):
    """The error is the model's own."""
    error = ConnectionError("refused")
    with pytest.raises(ConnectionError) as raised:
        await answers(dispatcher(edge=hosted(fails=error)), Sample(tier="edge", n=2), form)
    assert raised.value is error


async def test_samples_are_given_up_together(hosted):
    """A caller that is cancelled leaves no call behind."""
    model = hosted()
    asking = asyncio.create_task(dispatcher(edge=model).acall(Sample(tier="edge", n=3)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert model.open == 3
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert model.open == 0


async def test_blocking_models_are_called_in_threads(hosted, where):
    """By their synchronous form, in a copy of the context, beside the event loop."""
    where.set("here")
    model = hosted(blocking=True, meets=2)
    await dispatcher(edge=model).acall(Sample(tier="edge", n=2))
    model.barrier = None
    items = [item async for item in dispatcher(edge=model).astream(Final(tier="edge"))]
    assert [*items[:-1], items[-1].text] == ["a", "0", "a0"]
    assert threading.current_thread() not in {thread for thread, _ in model.places}
    assert {place for _, place in model.places} == {"here"}


async def test_a_blocking_stream_that_is_left_is_closed(hosted):
    """In a thread as well."""
    model = hosted(blocking=True)
    items = dispatcher(edge=model).astream(Final(tier="edge"))
    assert (await anext(items), model.open) == ("a", 1)
    await items.aclose()
    for _ in range(100):
        if not model.open:
            break
        await asyncio.sleep(0.01)
    assert model.open == 0


@pytest.mark.parametrize("ask", [Final(tier="edge", note="again"), Tentative(tier="edge", watch=wait)])
async def test_streams(hosted, ask):
    """The model's chunks and the whole answer; what it refuses is asked for less."""
    for form in ("stream", "astream"):
        model = hosted(refuses="logprobs", identity=1)
        made = getattr(dispatcher(edge=model), form)(ask)
        items = list(made) if form == "stream" else [item async for item in made]
        assert [*items[:-1], items[-1].text] == ["a", "0", "a0"]
        assert all(call.streamed for call in model.calls)
        assert model.calls[-1].note == getattr(ask, "note", None)
        assert len(model.calls) == (1 if isinstance(ask, Final) else 2)


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_what_a_model_refuses_is_remembered(hosted, form):
    """For as long as the fallback lives."""
    model = hosted(refuses="logprobs", identity=1)
    made = dispatcher(edge=model)
    for _ in range(2):
        await answers(made, Draft(tier="edge", top_logprobs=1), form)
    assert [call.logprobs for call in model.calls] == [True, True, False, False]


@pytest.mark.parametrize("form", ["call", "acall"])
@pytest.mark.parametrize("ask", [Hidden(tier="edge", layers=(0,)), Score(tier="edge", answer="4")])
async def test_a_model_that_runs_elsewhere_shows_nothing(hosted, ask, form):
    """And says which model that is."""
    with pytest.raises(SignalUnavailableError, match="small is not in this process"):
        await answers(dispatcher(edge=hosted()), ask, form)


@pytest.mark.parametrize("form", ["call", "acall"])
async def test_a_model_in_this_process_is_looked_into(hosted, monkeypatch, form):
    """With its network and the conversation as it reads it; never on the event loop."""
    seen = []

    def look(ask, model, messages):
        seen.append((ask, model, messages, threading.current_thread()))
        return Evidence(value="inside")

    monkeypatch.setattr("confroute.hosts.dispatch.look_inside", look)
    ask = Hidden(tier="edge", layers=(0,))
    made = dispatcher(edge=hosted(inside=lambda: ("network", MESSAGES)))
    assert (await answers(made, ask, form)).value == "inside"
    assert seen[0][:3] == (ask, "network", MESSAGES)
    assert (seen[0][3] is threading.current_thread()) == (form == "call")
