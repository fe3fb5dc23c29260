"""What a breaker refuses keeps the failure that it refuses for, and failed calls tell how often they were made."""

import asyncio

import pytest

from confroute import Breaker, Cascade, Limits, TokenLogprob
from confroute.error_notes import noted_attempts
from confroute.errors import BreakerOpenError, ConfrouteError
from confroute.hosts.router import Router
from confroute.models.resilience import aattempt, attempt
from confroute.testing import Reply, ScriptedModel
from confroute.testing.faults import StatusError, rate_limited, status


def refused():
    """Of a port that nobody listens at."""
    return ConnectionRefusedError(111, "words of a prompt")


class Down:
    """Fails every time, and counts how often."""

    def __init__(self, error=ConnectionRefusedError):
        self.made, self.error = 0, error

    def __call__(self):
        self.made += 1
        raise self.error()

    async def later(self):
        """Async form."""
        return self()


def failed(limits, call, form):
    """The error that a call under limits ends in."""
    with pytest.raises((ConfrouteError, OSError, StatusError)) as caught:
        _made(limits, call, form)
    return caught.value


def _made(limits, call, form):
    if form == "sync":
        return attempt(limits, "edge", call)
    return asyncio.run(aattempt(limits, "edge", call.later))


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_retry_that_the_breaker_refuses_keeps_the_cause(form):
    """The breaker opens at the second failure: the third attempt is refused, and its error says why."""
    down = Down()
    error = failed(Limits(attempts=5, wait_s=0.0, breaker=Breaker(failures=2)), down, form)
    assert isinstance(error, BreakerOpenError)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert (down.made, noted_attempts(error)) == (2, 2)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("error", [rate_limited, lambda: status(503), refused])
def test_a_later_call_is_told_what_failed(form, error):
    """By class and advice; the text of the failure, which may repeat a prompt, is not kept."""
    down, limits = Down(error), Limits(attempts=1, breaker=Breaker(failures=1))
    first = failed(limits, down, form)
    second = failed(limits, down, form)
    assert down.made == 1
    assert second.last_failure.startswith(type(first).__name__)
    assert second.last_failure in str(second)
    assert str(first) not in str(second)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_failed_call_tells_its_attempts(form, attempts):
    """As many as were made."""
    down = Down()
    error = failed(Limits(attempts=attempts, wait_s=0.0), down, form)
    assert down.made == noted_attempts(error) == attempts


def test_the_decision_names_the_first_cause_and_the_attempts():
    """Of both calls: the one that opened the breaker and the one after it."""
    edge = ScriptedModel([Reply(text="", fault=ConnectionRefusedError(111, "refused"))], name="small")
    router = Router(
        edge=edge,
        cloud=ScriptedModel(["four"], name="large"),
        policy=Cascade.of(TokenLogprob(), 0.1),
        edge_limits=Limits(attempts=3, wait_s=0.0, breaker=Breaker(failures=3)),
    )
    first, second = (router.ask("2 + 2?").decision for _ in range(2))
    assert [step.attempts for step in first.steps] == [3, 1]
    assert "nothing answers there" in first.reason
    assert "BreakerOpenError after ConnectionRefusedError; nothing answers there" in second.reason
    assert len(edge.calls) == 3
