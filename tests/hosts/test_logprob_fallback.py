"""Models that refuse log-probabilities are asked for less, and remembered."""

import pytest

from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelCall

FULL = ModelCall(role="draft", logprobs=True, top_logprobs=5, note="once more")
FORMS = ("call", "acall", "stream", "astream")


async def last(fallback, form, model, call=FULL):
    """The last thing that a call in one form gives."""
    made = getattr(fallback, form)(model, call)
    if form == "acall":
        return (await made)[-1]
    if form == "astream":
        return [item async for item in made][-1]
    return list(made)[-1]


def asked(model):
    """What each call asked for."""
    return [(call.logprobs, call.top_logprobs) for call in model.calls]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("refuses", "first", "then"),
    [
        ("", [(True, 5)], [(True, 5)]),
        ("top_logprobs", [(True, 5), (True, 0)], [(True, 0)]),
        ("logprobs", [(True, 5), (True, 0), (False, 0)], [(False, 0)]),
    ],
)
async def test_asked_for_less(hosted, form, refuses, first, then):
    """Alternatives go first, then all; the next call begins where this one ended."""
    fallback, model = LogprobFallback(), hosted(refuses=refuses, identity="small at home")
    assert (await last(fallback, form, model)).text == "a0"
    assert asked(model) == first
    await last(fallback, form, model)
    assert asked(model) == first + then
    assert {call.note for call in model.calls} == {"once more"}


async def test_identity_is_what_is_remembered(hosted):
    """Of equal identity, of another one, and of a model that has none."""
    fallback = LogprobFallback()
    await last(fallback, "call", hosted(refuses="logprobs", identity=1))
    same, other, nameless = (hosted(refuses="logprobs", identity=identity) for identity in (1, 2, None))
    for model in (same, other, nameless, nameless):
        await last(fallback, "call", model)
    assert asked(same) == [(False, 0)]
    assert asked(other) == [(True, 5), (True, 0), (False, 0)]
    assert asked(nameless) == asked(other) * 2


async def test_a_call_without_alternatives_is_asked_for_none(hosted):
    """There is nothing between it and no log-probabilities."""
    model = hosted(refuses="logprobs", identity=1)
    await last(LogprobFallback(), "call", model, ModelCall(role="draft", logprobs=True))
    assert asked(model) == [(True, 0), (False, 0)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ConnectionError("refused"), FULL),
        (ValueError("bad request"), FULL),
        (ValueError("400: logprobs is not supported"), ModelCall(role="final")),
    ],
    ids=["no connection", "another reason", "not asked for"],
)
async def test_other_errors_are_raised_as_they_came(hosted, form, error, call):
    """At once, and nothing is learnt from them."""
    fallback, model = LogprobFallback(), hosted(fails=error, identity=1)
    with pytest.raises(type(error)) as raised:
        await last(fallback, form, model, call)
    assert raised.value is error
    assert model.calls == [call]
    model.fails = None
    await last(fallback, form, model)
    assert model.calls == [call, FULL]


@pytest.mark.parametrize("form", ["stream", "astream"])
async def test_a_stream_that_has_begun_is_not_begun_again(hosted, form):
    """The caller has seen its chunks."""
    model = hosted(breaks=ValueError("400: logprobs is not supported"), identity=1)
    with pytest.raises(ValueError, match="logprobs"):
        await last(LogprobFallback(), form, model)
    assert len(model.calls) == 1


async def test_a_stream_that_is_left_is_closed(hosted):
    """Down to the model's own."""
    model = hosted()
    items = LogprobFallback().stream(model, FULL)
    assert (next(items), model.open) == ("a", 1)
    items.close()
    assert model.open == 0
    aitems = LogprobFallback().astream(model, FULL)
    assert (await anext(aitems), model.open) == ("a", 1)
    await aitems.aclose()
    assert model.open == 0


async def ended(fallback, form, model):
    """Make a call that may fail."""
    try:
        await last(fallback, form, model)
    except ValueError as error:
        return error
    return None


@pytest.mark.parametrize("form", FORMS)
async def test_believed_only_if_the_call_without_them_succeeds(hosted, form):
    """A request that is bad whatever it asks for teaches nothing."""
    bad = ValueError("400: logprobs is not supported, says the prompt")
    fallback, model = LogprobFallback(), hosted(fails=bad, identity=1)
    assert await ended(fallback, form, model) is bad
    assert asked(model) == [(True, 5), (True, 0), (False, 0)]
    model.fails = None
    await last(fallback, form, model)
    assert asked(model)[-1] == (True, 5)


@pytest.mark.parametrize("form", FORMS)
async def test_asked_again_later(hosted, form):
    """By one call, after a while; what it learns holds for the others."""
    now = [0.0]
    fallback, model = (
        LogprobFallback(again_s=60, clock=lambda: now[0]),
        hosted(refuses="logprobs", identity=1),
    )
    for at, first in ((0, (True, 5)), (59, (False, 0)), (61, (True, 5)), (62, (False, 0)), (130, (True, 5))):
        now[0], model.calls[:] = at, []
        await last(fallback, form, model)
        assert asked(model)[0] == first
    now[0], model.calls[:], model.refuses = 200, [], ""
    await last(fallback, form, model)
    now[0] = 201
    await last(fallback, form, model)
    assert asked(model) == [(True, 5), (True, 5)]


async def test_one_call_asks_again(hosted):
    """While it waits for its answer, the others ask for what they are given."""
    now = [0.0]
    fallback, model = (
        LogprobFallback(again_s=60, clock=lambda: now[0]),
        hosted(refuses="logprobs", identity=1),
    )
    await last(fallback, "call", model)
    now[0], model.calls[:] = 61, []
    probe, other = fallback.stream(model, FULL), fallback.stream(model, FULL)
    next(other), next(probe)
    assert asked(model)[0] == (False, 0) or asked(model).count((True, 5)) == 1
