"""Errors that tell of another one are instances of its class too: what retries or falls back by class goes on working."""

import json
import pickle

import httpx
import openai
import pytest
from pydantic import BaseModel, ValidationError

from confroute.errors import AllTiersFailedError, StreamInterruptedError, TierError, TierTimeoutError, also_as
from confroute.models.breaker import status_of
from confroute.models.resilience import is_transient

RESPONSE = httpx.Response(401, request=httpx.Request("POST", "http://here"))


class Choosy(Exception):  # noqa: N818  as clients name theirs
    """Cannot be made from a message alone."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


CAUSES = [
    ValueError("no"),
    KeyError("choices"),
    OSError(111, "refused"),
    json.JSONDecodeError("no JSON", "x", 0),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    Choosy(code=7),
    openai.AuthenticationError("wrong key", response=RESPONSE, body={"code": "invalid_api_key"}),
    httpx.HTTPStatusError("401", request=RESPONSE.request, response=RESPONSE),
    TierTimeoutError(tier="cloud", timeout_s=1.0),
    also_as(TierError("inner"), KeyError("choices")),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize(
    "error",
    [TierError("told"), StreamInterruptedError("told"), AllTiersFailedError({"cloud": ValueError("?")})],
)
def test_both_classes(error, cause):
    """With both's attributes, its own words, and through a pickle."""
    both = also_as(error, cause)
    assert isinstance(both, type(cause))
    assert isinstance(both, type(error))
    assert (str(both), both.args) == (str(error), error.args)
    assert vars(both).items() >= {**vars(cause), **vars(error)}.items()
    assert status_of(both) == status_of(cause)
    assert is_transient(both) is is_transient(cause)
    with pytest.raises(type(cause)):
        raise both


def test_through_a_pickle():
    """As worker processes hand errors back."""
    both = pickle.loads(pickle.dumps(also_as(TierError("told"), Choosy(code=7))))
    assert isinstance(both, Choosy)
    assert isinstance(both, TierError)
    assert (str(both), both.code) == ("told", 7)


class Number(BaseModel):
    """What a text is not."""

    n: int


def not_a_number():
    try:
        Number(n="x")
    except ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "cause", [StopIteration("x"), StopAsyncIteration("x"), not_a_number(), Exception("x")]
)
def test_classes_that_cannot_be_joined(cause):
    """Final ones, and those that would end a generator: the error stays what it is."""
    error = TierError("told")
    assert also_as(error, cause) is error
