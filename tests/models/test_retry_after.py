"""How long a provider asks to wait, in every form that clients hand it on, and that retries keep to it."""

import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from confroute import Limits
from confroute.models.resilience import aattempt, attempt
from confroute.models.retry_after import retry_after_s
from confroute.testing import faults

NOON = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT


class Answered(Exception):  # noqa: N818  an error with the answer that it stands for
    """HTTP 429 with these headers."""

    status_code = 429

    def __init__(self, headers):
        super().__init__("429")
        self.response = SimpleNamespace(headers=headers, status_code=429)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The machine's clock stands still."""
    monkeypatch.setattr(time, "time", lambda: NOON)


@pytest.fixture
def naps(monkeypatch):
    """How long each wait was to be; none is slept."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "2"}, 2),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": formatdate(NOON + 3, usegmt=True)}, 3),
        ({"retry-after": "Sun, 09 Sep 2001 01:46:43 -0000"}, 3),
        ({"retry-after": "Sunday, 09-Sep-01 01:46:43 GMT"}, 3),
        ({"retry-after": "Sun Sep  9 01:46:43 2001"}, 3),
        ({"retry-after": "Sun, 09 Sep 2001 03:46:43 +0200"}, 3),
        ({"retry-after": formatdate(NOON - 60, usegmt=True)}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"Retry-After-Ms": "250"}, 0.25),
        ({"RETRY-AFTER": "4"}, 4),
        ({b"Retry-After": b"4"}, 4),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "Sun, 99 Sep 2001 01:46:43 GMT"}, 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_every_form_of_the_headers_is_read(headers, wait_s):
    """Seconds, milliseconds, and dates in the three forms of HTTP; what is none of these asks for nothing."""
    assert retry_after_s(Answered(headers)) == pytest.approx(wait_s)


def test_a_date_is_measured_by_the_servers_own_clock():
    """A server an hour ahead asks for three seconds, not for an hour and three seconds."""
    ahead = NOON + 3600
    headers = {"date": formatdate(ahead, usegmt=True), "retry-after": formatdate(ahead + 3, usegmt=True)}
    assert retry_after_s(Answered(headers)) == 3


def named(**fields):
    error = ConnectionError("refused")
    vars(error).update(fields)
    return error


@pytest.mark.parametrize(
    "error",
    [
        named(headers={"Retry-After": "2"}),
        named(response={"ResponseMetadata": {"HTTPHeaders": {"retry-after": "2"}}}),
        faults.rate_limited(retry_after_s=2),
    ],
    ids=["aiohttp and urllib", "botocore", "scripted"],
)
def test_clients_keep_the_headers_in_different_places(error):
    """On the error itself, or in a mapping."""
    assert retry_after_s(error) == 2


def test_an_error_that_wraps_another_is_looked_through():
    """Also where two errors are each other's cause."""
    outer, inner = ConnectionError("wrapped"), Answered({"retry-after": "2"})
    outer.__cause__ = inner
    assert retry_after_s(outer) == 2
    first, second = ConnectionError("a"), ConnectionError("b")
    first.__cause__, second.__cause__ = second, first
    assert retry_after_s(first) == 0


def test_headers_of_a_real_client_are_read():
    """OpenAI's errors hold httpx's headers, which are read whatever their case."""
    httpx, openai = pytest.importorskip("httpx"), pytest.importorskip("openai")
    response = httpx.Response(
        429, headers={"Retry-After-Ms": "1500"}, request=httpx.Request("POST", "http://loopback")
    )
    assert retry_after_s(openai.RateLimitError("slow down", response=response, body=None)) == 1.5


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"retry-after": formatdate(NOON + 3, usegmt=True)}, [3]),
        ({"retry-after-ms": "1500"}, [1.5]),
        ({"retry-after": formatdate(NOON + 86400, usegmt=True)}, [4]),
        ({"retry-after-ms": "9e9"}, [4]),
        ({"retry-after": "inf"}, [4]),
    ],
)
async def test_retries_wait_as_long_as_asked_up_to_the_longest_wait(headers, waits, naps, monkeypatch):
    """In both forms; none is slept here."""
    limits = Limits(attempts=2, wait_s=0.001, max_wait_s=4)
    answers = iter([Answered(headers), "fine", Answered(headers), "fine"])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def acall():
        return call()

    async def asleep(seconds):
        naps.append(seconds)

    assert attempt(limits, "cloud", call).value == "fine"
    monkeypatch.setattr("asyncio.sleep", asleep)
    assert (await aattempt(limits, "cloud", acall)).value == "fine"
    assert naps == pytest.approx(waits * 2)
