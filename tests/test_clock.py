"""The clock of calls: what is loaded for a call takes none of its time."""

import asyncio
from dataclasses import replace

import pytest

import confroute.clock as clock_module
from confroute import Cascade, Message, Request, TokenLogprob, streaming
from confroute.clock import Loads, now, standing_still, timing
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.types import Generation

POLICY = Cascade.of(TokenLogprob(), 0.25)
REQUEST = Request(messages=(Message(role="user", text="Capital of Norway?"),))


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves: `clock.at += 5`."""

    class Clock:
        at = 100.0

        def perf_counter(self):
            return self.at

    fake = Clock()
    monkeypatch.setattr(clock_module, "time", fake)
    return fake


def test_it_stands_still_while_something_is_loaded(clock):
    """For the call in whose context that is, and for those around it; for no other."""
    untimed = now()
    with timing():
        outer = now()
        with timing():
            inner = now()
            with standing_still():
                clock.at += 60
            clock.at += 2
            assert now() - inner == pytest.approx(2)
        assert now() - outer == pytest.approx(2)
        with timing():
            later = now()
            clock.at += 1
            assert now() - later == pytest.approx(1)
    assert now() - untimed == pytest.approx(63)


def failing_load(clock):
    """A minute's, of a file that is gone."""
    with standing_still():
        clock.at += 60
        raise OSError("gone")


def test_a_load_that_fails_counts_as_one(clock):
    """Its seconds are no call's either, and the clock goes on."""
    with timing():
        start = now()
        with pytest.raises(OSError, match="gone"):
            failing_load(clock)
        clock.at += 3
        assert now() - start == pytest.approx(3)


def test_two_loads_at_the_same_time_count_once(clock):
    """Otherwise a call that loads two models at once would take less than no time."""
    loads = Loads()
    loads.begin()
    clock.at += 10
    loads.begin()
    clock.at += 10
    loads.end()
    clock.at += 10
    loads.end()
    assert loads.total_s == pytest.approx(30)


def answer(clock):
    """What a model answers that is loaded for a minute and then takes two seconds."""
    with standing_still():
        clock.at += 60
    clock.at += 2
    return Generation(text="Oslo", logprobs=(-0.05,), tokens=("Oslo",))


def by_run(clock):
    """Whole."""
    return run(POLICY, REQUEST, lambda _ask: [answer(clock)], {})


def by_arun(clock):
    """Async, in a thread as local models answer."""

    async def call(_ask):
        return [await asyncio.to_thread(answer, clock)]

    return asyncio.run(arun(POLICY, REQUEST, call, {}))


def by_run_stream(clock):
    """In chunks."""

    def stream(_ask):
        whole = answer(clock)
        yield "Oslo"
        yield whole

    *_, routed = run_stream(POLICY, REQUEST, lambda _ask: [answer(clock)], stream, {})
    return routed


def by_arun_stream(clock):
    """Async form."""

    async def call(_ask):
        return [answer(clock)]

    async def stream(_ask):
        whole = await asyncio.to_thread(answer, clock)
        yield "Oslo"
        yield whole

    async def last():
        return [item async for item in arun_stream(POLICY, REQUEST, call, stream, {})][-1]

    return asyncio.run(last())


@pytest.mark.parametrize("ask", [by_run, by_arun, by_run_stream, by_arun_stream])
@pytest.mark.parametrize("route", ["edge", "cloud"])
def test_the_latency_of_a_routed_call(clock, ask, route, monkeypatch):
    """Two seconds, not 62: asked whole and in chunks, sync and async, as a draft and as the cloud's answer."""
    monkeypatch.setattr(streaming, "time", clock)
    monkeypatch.setattr(f"{__name__}.REQUEST", replace(REQUEST, route=route))
    (step,) = ask(clock).decision.steps
    assert step.latency_s == pytest.approx(2)
    assert clock.at == pytest.approx(162)
