"""What comes after its time is thrown away tidily: nothing stays open, no thread waits, no garbage collector is needed."""

import gc
import threading

import pytest

from confroute import Limits
from confroute.asks import Final
from confroute.errors import TierTimeoutError
from confroute.models import resilience
from confroute.models.resilience import attempt
from confroute.streaming import stream_answer
from confroute.types import Generation

FINAL = Final(tier="cloud")


@pytest.fixture(autouse=True)
def no_collector():
    """Whatever is closed is closed by us."""
    gc.disable()
    yield
    gc.enable()


class Late:
    """A stream whose first chunk of the first `slow` attempts waits for `go`."""

    def __init__(self, slow=1, error=None):
        self.go, self.slow, self.error = threading.Event(), slow, error
        self.opened, self.closed = [], []

    def __call__(self, ask):
        self.opened.append(number := len(self.opened))
        try:
            if number < self.slow:
                self.go.wait(5)
            if self.error is not None:
                raise self.error
            yield "chunk"
            yield Generation(text="chunk")
        finally:
            self.closed.append(number)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_stream_whose_first_chunk_comes_too_late_is_closed(until, attempts):
    """When the chunk comes, in the thread that waited for it; with as many attempts, all of them."""
    late, threads = Late(slow=attempts), threading.active_count()
    limits = Limits(timeout_s=0.05, attempts=attempts, wait_s=0.001, max_wait_s=0.001)
    with pytest.raises(TierTimeoutError):
        next(stream_answer(FINAL, late, limits, None, None))
    assert (late.opened, late.closed) == ([*range(attempts)], [])
    late.go.set()
    await until(lambda: sorted(late.closed) == late.opened and threading.active_count() == threads)


async def test_the_attempt_that_answers_stays_open(until):
    """Only the late one is closed; the other's chunks arrive."""
    late = Late()
    limits = Limits(timeout_s=0.05, attempts=2, wait_s=0.001, max_wait_s=0.001)
    items = stream_answer(FINAL, late, limits, None, None)
    assert next(items) == "chunk"
    late.go.set()
    await until(lambda: late.closed == [0])
    assert next(items).generations[0].text == "chunk"


async def test_a_late_error_is_dropped_without_a_word(until, caplog):
    """There is nothing to close, and nobody to tell."""
    late = Late(error=ValueError("late"))
    with pytest.raises(TierTimeoutError):
        next(stream_answer(FINAL, late, Limits(timeout_s=0.05, attempts=1), None, None))
    late.go.set()
    await until(lambda: late.closed == [0])
    assert caplog.records == []


async def test_a_stream_is_closed_too_where_its_waiting_was_interrupted(until, monkeypatch):
    """By Ctrl-C, which ends the waiting, not the thread."""
    late = Late()

    class Interrupted(resilience.Future):
        def result(self, timeout=None):
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return super().result(timeout)

    monkeypatch.setattr(resilience, "Future", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream_answer(FINAL, late, Limits(timeout_s=5, attempts=1), None, None))
    late.go.set()
    await until(lambda: late.closed == [0])


def test_a_result_at_the_last_moment_is_the_result(monkeypatch):
    """It came between the end of the time and the look at it."""

    class Slow(resilience.Future):
        def result(self, timeout=None):
            value = super().result(5)
            if timeout is not None:
                raise TimeoutError
            return value

    monkeypatch.setattr(resilience, "Future", Slow)
    assert attempt(Limits(timeout_s=1, attempts=1), "cloud", lambda: "fine").value == "fine"
