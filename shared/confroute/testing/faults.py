"""Faults of providers, as the exceptions that their clients raise.

Pass one to `Reply(fault=...)`: a scripted model raises it, and a `ScriptedServer` makes it happen on the wire, so that
a real client raises its own exception.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias

from confroute.errors import MissingExtraError

Provider: TypeAlias = Literal["plain", "openai"]
MALFORMED = '{"choices": '
_URL = "http://scripted/v1/chat/completions"


class StatusError(Exception):
    """An HTTP error with a `status_code`, by which confroute recognises the errors of any client.

    Attributes
    ----------
    status_code : int
    retry_after_s : float or None
        Value of the server's `Retry-After` header, in seconds.
    """

    def __init__(self, status_code: int, retry_after_s: float | None = None) -> None:
        super().__init__(f"HTTP {status_code} (scripted)")
        self.status_code, self.retry_after_s = status_code, retry_after_s

    def __reduce__(self) -> tuple[type[StatusError], tuple[int, float | None]]:
        # Scripted models are pickled and copied with their replies.
        return type(self), (self.status_code, self.retry_after_s)


def timeout(provider: Provider = "plain") -> Exception:
    """Make the error of an answer that does not come in time.

    Examples
    --------
    >>> timeout()
    TimeoutError('no answer in time (scripted)')
    """
    if provider == "plain":
        return TimeoutError("no answer in time (scripted)")
    httpx, openai = _clients()
    error: Exception = openai.APITimeoutError(request=httpx.Request("POST", _URL))
    return error


def rate_limited(provider: Provider = "plain", *, retry_after_s: float | None = None) -> Exception:
    """Make the error of too many requests, HTTP 429.

    Examples
    --------
    >>> rate_limited().status_code
    429
    """
    return status(429, provider, retry_after_s=retry_after_s)


def server_error(provider: Provider = "plain") -> Exception:
    """Make the error of a broken server, HTTP 500.

    Examples
    --------
    >>> server_error()
    StatusError('HTTP 500 (scripted)')
    """
    return status(500, provider)


def status(code: int, provider: Provider = "plain", *, retry_after_s: float | None = None) -> Exception:
    """Make the error of any HTTP status from 400 to 599.

    Raises
    ------
    ValueError
        The status is not an error.
    """
    if not 400 <= code <= 599:
        msg = f"status is {code}: expected an error, 400 to 599"
        raise ValueError(msg)
    if provider == "plain":
        return StatusError(code, retry_after_s)
    httpx, openai = _clients()
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    response = httpx.Response(code, headers=headers, request=httpx.Request("POST", _URL))
    kinds = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        409: openai.ConflictError,
        422: openai.UnprocessableEntityError,
        429: openai.RateLimitError,
    }
    kind = kinds.get(code, openai.InternalServerError if code >= 500 else openai.APIStatusError)
    error: Exception = kind(f"Error code: {code} (scripted)", response=response, body=None)
    return error


def cut_off(provider: Provider = "plain") -> Exception:
    """Make the error of a broken connection: before the answer, or in a stream after `Reply(fault_after=...)` words.

    Examples
    --------
    >>> cut_off()
    ConnectionError('the connection was cut (scripted)')
    """
    if provider == "plain":
        return ConnectionError("the connection was cut (scripted)")
    httpx, openai = _clients()
    error: Exception = openai.APIConnectionError(
        message="Connection error. (scripted)", request=httpx.Request("POST", _URL)
    )
    return error


def malformed() -> Exception:
    """Make the error of an answer that is not JSON, for which OpenAI's client raises Python's own error too.

    Examples
    --------
    >>> malformed()
    JSONDecodeError('Expecting value: line 1 column 13 (char 12)')
    """
    return json.JSONDecodeError("Expecting value", MALFORMED, len(MALFORMED))


def _clients() -> tuple[Any, Any]:
    try:
        import httpx
        import openai
    except ImportError as error:
        raise MissingExtraError(extra="openai", needed_for="faults of OpenAI's client") from error
    return httpx, openai
