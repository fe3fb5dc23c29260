"""Breaker, retry budget and deadline, each around real calls."""

import asyncio
import contextlib
import copy
import math
import pickle
import threading
import time
from types import SimpleNamespace

import pytest

from confroute import Limits
from confroute.asks import Final
from confroute.errors import (
    BreakerOpenError,
    DeadlineError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
    TierTimeoutError,
)
from confroute.models.breaker import Breaker
from confroute.models.deadline import deadline, time_left
from confroute.models.resilience import aattempt, attempt
from confroute.models.retry_budget import RetryBudget
from confroute.streaming import astream_answer
from confroute.types import Generation


class Status(Exception):  # noqa: N818  read as a sentence in the tests
    """An HTTP error, with the headers of its response."""

    def __init__(self, code, **headers):
        super().__init__(str(code))
        self.status_code = code
        self.response = type("Response", (), {"headers": headers, "status_code": code})()


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def naps(monkeypatch):
    """How long each wait between attempts was to be; none is slept."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def failing(error):
    def call():
        raise error

    return call


def tried(breaker, call=lambda: "fine", **limits):
    """One attempt's value, or the error it ended in."""
    try:
        return attempt(Limits(attempts=1, breaker=breaker, **limits), "cloud", call).value
    except Exception as error:  # noqa: BLE001  the tests look at it
        return error


def test_a_breaker_opens_probes_and_closes():
    """Failures in a row open it; after its time one probe passes; a successful probe closes it."""
    clock = Clock()
    breaker = Breaker(failures=3, open_s=10, clock=clock)
    for _ in range(2):
        tried(breaker, failing(ConnectionError()))
    assert tried(breaker) == "fine"
    for _ in range(3):
        tried(breaker, failing(ConnectionError()))
    assert breaker.state == "open"
    refused = tried(breaker)
    assert isinstance(refused, BreakerOpenError)
    assert refused.retry_in_s == 10
    clock.now = 10
    assert breaker.state == "half_open"
    assert isinstance(tried(breaker, failing(Status(500))), Status)
    assert breaker.state == "open"
    clock.now = 20
    assert tried(breaker) == "fine"
    assert breaker.state == "closed"


def test_one_probe_at_a_time():
    """While a probe is under way all other attempts are refused, and the end of an older attempt changes nothing."""
    clock, inside, go = Clock(), threading.Event(), threading.Event()
    breaker = Breaker(failures=1, open_s=1, clock=clock)

    def slow():
        inside.set()
        go.wait(5)
        return "fine"

    old = threading.Thread(target=tried, args=(breaker, slow))
    old.start()
    inside.wait(5)
    tried(breaker, failing(ConnectionError()))
    go.set()
    old.join()
    assert breaker.state == "open"  # the old attempt began before: its success says nothing
    clock.now, results = 1, []
    inside.clear()
    go.clear()
    probe = threading.Thread(target=lambda: results.append(tried(breaker, slow)))
    probe.start()
    inside.wait(5)
    assert all(isinstance(tried(breaker), BreakerOpenError) for _ in range(5))
    go.set()
    probe.join()
    assert (results, breaker.state) == (["fine"], "closed")


async def test_a_cancelled_probe_gives_its_place_back(until):
    """A cancelled probe says nothing about the tier: the next attempt probes."""
    clock = Clock()
    breaker = Breaker(failures=1, open_s=1, clock=clock)
    tried(breaker, failing(ConnectionError()))
    clock.now = 1
    limits = Limits(attempts=1, breaker=breaker)
    began = []

    async def probe():
        began.append(1)
        await asyncio.sleep(60)

    task = asyncio.create_task(aattempt(limits, "cloud", probe))
    await until(lambda: began)
    with pytest.raises(BreakerOpenError):
        await aattempt(limits, "cloud", lambda: asyncio.sleep(0))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await aattempt(limits, "cloud", lambda: asyncio.sleep(0))
    assert breaker.state == "closed"


@pytest.mark.parametrize("error", [Status(400), Status(401), Status(422), RequestError("empty")])
def test_the_callers_mistakes_do_not_open_it(error):
    """A wrong request or key is not an outage."""
    breaker = Breaker(failures=1)
    tried(breaker, failing(error))
    assert breaker.state == "closed"


def test_a_status_in_the_response_is_a_status_too():
    """httpx and requests keep it there; OpenAI's client on the error itself."""

    class Refused(Exception):  # noqa: N818  read as a sentence in the test
        response = type("Response", (), {"status_code": 401})()

    breaker = Breaker(failures=1)
    tried(breaker, failing(Refused()))
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    "nothing",
    [
        DeadlineError(tier="cloud", left_s=0.0),
        RequestError("empty"),
        SignalUnavailableError("no hidden states"),
    ],
)
def test_calls_that_never_reached_the_tier_do_not_count(nothing):
    """They neither open a breaker, nor reset its count of failures, nor count as the probe that closes it."""
    clock = Clock()
    breaker = Breaker(failures=2, open_s=1, clock=clock)
    for error in (nothing, ConnectionError(), nothing, ConnectionError()):
        tried(breaker, failing(error))
    assert breaker.state == "open"
    clock.now = 1
    tried(breaker, failing(nothing))
    assert breaker.state == "half_open"
    assert tried(breaker) == "fine"
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": math.inf}, {"wait_s": -1.0}, {"max_wait_s": math.nan}, {"expected_s": math.inf}],
)
def test_impossible_times_are_refused(wrong):
    """At construction, not at the first call."""
    with pytest.raises(PolicyError, match="expected seconds"):
        Limits(**wrong)


def test_an_open_breaker_is_not_tried_again():
    """Retries stop at once: there is no point in waiting for a tier that is not called."""
    calls = []

    def call():
        calls.append(1)
        raise ConnectionError

    limits = Limits(attempts=5, wait_s=0.001, max_wait_s=0.001, breaker=Breaker(failures=2))
    with pytest.raises(BreakerOpenError):
        attempt(limits, "cloud", call)
    assert len(calls) == 2


async def test_retries_of_all_calls_share_a_budget():
    """A hundred failing calls make a hundred attempts, the burst, and the share of each."""
    calls = []

    def call():
        calls.append(1)
        raise ConnectionError

    async def acall():
        call()

    limits = Limits(attempts=4, wait_s=0.0001, max_wait_s=0.0001, retries=RetryBudget(share=0.1, burst=5))
    for _ in range(50):
        with pytest.raises(ConnectionError):
            attempt(limits, "cloud", call)
        with pytest.raises(ConnectionError):
            await aattempt(limits, "cloud", acall)
    assert 100 + 10 <= len(calls) <= 100 + 15


async def test_a_deadline_cuts_attempts_and_begins_no_retry_it_cannot_finish(silence, naps):
    """A call that never answers ends at the deadline, and a wait that would pass it is not begun."""
    silent = Limits(attempts=3, wait_s=0.001, max_wait_s=0.001)
    with deadline(0.1), pytest.raises(TierTimeoutError):
        attempt(silent, "cloud", silence.wait)
    with deadline(0.1), pytest.raises(TierTimeoutError):
        await aattempt(silent, "cloud", silence.await_end)
    waits = Limits(attempts=3, wait_s=0.001, max_wait_s=60)
    with deadline(20), pytest.raises(Status):
        attempt(waits, "cloud", failing(Status(429, **{"retry-after": "30"})))
    assert naps == []
    assert time_left() is None


def test_time_that_is_kept_back_is_not_used(monkeypatch):
    """A tier may use what is left less what the next one needs; nothing left is an error that no retry follows."""
    clock = Clock()
    monkeypatch.setattr("confroute.models.deadline.time", SimpleNamespace(monotonic=clock))
    with deadline(10):
        assert Limits().limit_s("edge", 4) == 6
        assert Limits(timeout_s=2).limit_s("edge", 4) == 2
        with deadline(60):
            clock.now = 1.0
            assert time_left() == 9
        with pytest.raises(DeadlineError, match="reserved for later tiers"):
            attempt(Limits(attempts=3), "edge", lambda: "never called", keep_s=11)


def test_retry_after_is_honoured(naps):
    """The provider's own wait is kept, up to the longest wait."""
    calls = []

    def call():
        calls.append(1)
        if len(calls) == 1:
            raise Status(429, **{"retry-after": "0.1"})
        return "fine"

    done = attempt(Limits(attempts=2, wait_s=0.001, max_wait_s=1), "cloud", call)
    assert (done.value, done.attempts, naps) == ("fine", 2, [0.1])
    calls.clear()
    attempt(Limits(attempts=2, wait_s=0.001, max_wait_s=0.05), "cloud", call)
    assert naps == [0.1, 0.05]


def test_copies_share_the_state_and_pickles_start_anew():
    """A host's deep copy guards the same tier; another process starts closed."""
    breaker = Breaker(failures=1)
    tried(breaker, failing(ConnectionError()))
    limits = Limits(breaker=breaker, retries=RetryBudget(burst=2))
    assert copy.deepcopy(limits).breaker is breaker
    assert copy.deepcopy(limits).retries is limits.retries
    other = pickle.loads(pickle.dumps(limits))
    assert (other.breaker.state, other.breaker.failures, other.retries.burst) == ("closed", 1, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Breaker(failures=0),
        lambda: Breaker(open_s=0),
        lambda: RetryBudget(share=2),
        lambda: RetryBudget(burst=0),
        lambda: Limits(expected_s=-1),
    ],
)
def test_settings_out_of_range(make):
    """Refused, with what was expected."""
    with pytest.raises(PolicyError, match="expected"):
        make()


def test_a_deadline_needs_a_time():
    """Zero seconds are refused."""
    with pytest.raises(RequestError, match="above 0"), deadline(0):
        pass


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_stream_whose_first_chunk_comes_too_late_is_closed(attempts):
    """Cancelled just as its first chunk comes, an attempt leaves no stream open, even if the next one answers."""
    opened, closed = [], []

    async def stream(wanted):
        opened.append(number := len(opened))
        try:
            if number == 0:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)
            yield "chunk"
            yield Generation(text="chunk")
        finally:
            closed.append(number)

    limits = Limits(timeout_s=0.05, attempts=attempts, wait_s=0.001)
    items = astream_answer(Final(tier="cloud"), stream, limits, None, None)
    if attempts == 1:
        with pytest.raises(TierTimeoutError):
            await anext(items)
    else:
        chunk, evidence = [item async for item in items]
        assert (chunk, evidence.generations[0].text, evidence.attempts) == ("chunk", "chunk", 2)
    assert sorted(closed) == opened
