"""Breaker, retry budget and deadline, each around real calls."""

import asyncio
import contextlib
import copy
import math
import pickle
import threading
import time

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
    """Failures in a row open it, its time lets one probe pass, and a good probe closes it."""
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
    """While a probe is on its way every other attempt is refused, and an old attempt's end changes nothing."""
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
    assert breaker.state == "open"  # the old attempt began before: its success is no news
    clock.now, found = 1, []
    inside.clear()
    go.clear()
    probe = threading.Thread(target=lambda: found.append(tried(breaker, slow)))
    probe.start()
    inside.wait(5)
    assert all(isinstance(tried(breaker), BreakerOpenError) for _ in range(5))
    go.set()
    probe.join()
    assert (found, breaker.state) == (["fine"], "closed")


async def test_a_cancelled_probe_gives_its_place_back():
    """A cancelled probe says nothing about the tier: the next attempt probes."""
    clock = Clock()
    breaker = Breaker(failures=1, open_s=1, clock=clock)
    tried(breaker, failing(ConnectionError()))
    clock.now = 1
    limits = Limits(attempts=1, breaker=breaker)
    task = asyncio.create_task(aattempt(limits, "cloud", lambda: asyncio.sleep(60)))
    await asyncio.sleep(0.01)
    with pytest.raises(BreakerOpenError):
        await aattempt(limits, "cloud", lambda: asyncio.sleep(0))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await aattempt(limits, "cloud", lambda: asyncio.sleep(0))
    assert breaker.state == "closed"


@pytest.mark.parametrize("error", [Status(400), Status(401), Status(422), RequestError("empty")])
def test_the_callers_mistakes_do_not_open_it(error):
    """A wrong request or key is no outage."""
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
def test_what_never_reached_the_tier_says_nothing_about_it(nothing):
    """It neither opens a breaker, nor ends a row of failures, nor counts as the good probe that closes one."""
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
def test_times_that_no_clock_can_wait_for_are_refused(wrong):
    """At once, not when the first call is made."""
    with pytest.raises(PolicyError, match="expected seconds"):
        Limits(**wrong)


def test_an_open_breaker_is_not_tried_again():
    """Retries stop at once: waiting for a tier that is not asked helps nobody."""
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


async def test_a_deadline_cuts_attempts_and_begins_no_retry_it_cannot_finish():
    """A slow call ends at the deadline, and a wait that would pass it is not begun."""
    slow = Limits(attempts=3, wait_s=0.001, max_wait_s=0.001)
    start = time.perf_counter()
    with deadline(0.1), pytest.raises(TierTimeoutError):
        attempt(slow, "cloud", lambda: time.sleep(0.4))
    with deadline(0.1), pytest.raises(TierTimeoutError):
        await aattempt(slow, "cloud", lambda: asyncio.sleep(5))
    waits = Limits(attempts=3, wait_s=0.001, max_wait_s=60)
    with deadline(0.1), pytest.raises(Status):
        attempt(waits, "cloud", failing(Status(429, **{"retry-after": "30"})))
    assert time.perf_counter() - start < 0.35
    assert time_left() is None


def test_time_that_is_kept_back_is_not_used():
    """A tier may use what is left less what the next one needs; nothing left is an error that no retry follows."""
    with deadline(10):
        assert Limits().limit_s("edge", 4) == pytest.approx(6, abs=0.1)
        assert Limits(timeout_s=2).limit_s("edge", 4) == 2
        with deadline(60):
            assert time_left() < 10.1
        with pytest.raises(DeadlineError, match="reserved for later tiers"):
            attempt(Limits(attempts=3), "edge", lambda: "never called", keep_s=11)


def test_retry_after_is_honoured():
    """The provider's own wait is kept, up to the longest wait."""
    calls = []

    def call():
        calls.append(1)
        if len(calls) == 1:
            raise Status(429, **{"retry-after": "0.1"})
        return "fine"

    start = time.perf_counter()
    done = attempt(Limits(attempts=2, wait_s=0.001, max_wait_s=1), "cloud", call)
    assert (done.value, done.attempts) == ("fine", 2)
    assert time.perf_counter() - start > 0.09


def test_copies_share_the_state_and_pickles_begin_anew():
    """A host's deep copy watches the same tier; another process begins closed."""
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
    """Zero seconds are no deadline."""
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
