"""What a failed call is to a caller over HTTP: a status, OpenAI's error object, and how long to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import JSONResponse

from confroute.errors import (
    AllTiersFailedError,
    BreakerOpenError,
    BudgetSpentError,
    ConfrouteError,
    RequestError,
    StreamInterruptedError,
    TierError,
)
from confroute.models.breaker import status_of
from confroute.models.resilience import is_transient
from confroute.models.retry_after import retry_after_s
from confroute.remediation import describe, named
from confroute.types import JSON

# A provider's refusals of the request itself, of too many of them, and of any just now. What else it refuses (a key, a model's
# name) is the server's set-up and nothing that its caller could mend: 502.
_PASSED_ON = {400: 400, 408: 504, 413: 413, 422: 422, 429: 429, 503: 503, 504: 504, 529: 503}
_BY_CLASS: tuple[tuple[type[BaseException], int], ...] = (
    (BudgetSpentError, 429),
    (BreakerOpenError, 503),
    (TimeoutError, 504),
    (RequestError, 400),
    (TierError, 502),
    (StreamInterruptedError, 502),
)
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RefusedError(ConfrouteError):
    """A request that the server refuses before it reaches the router."""

    def __init__(self, status: int, code: str, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.code, self.wait_s = status, code, wait_s


def status_for(error: BaseException) -> int:
    """The HTTP status of a failed call.

    Examples
    --------
    >>> status_for(RequestError("empty")), status_for(TimeoutError()), status_for(KeyError("x"))
    (400, 504, 500)
    """
    cause = _cause(error)
    if isinstance(cause, RefusedError):
        return cause.status
    if (upstream := status_of(cause)) is not None:
        return _PASSED_ON.get(upstream, 502)
    known = (status for kind, status in _BY_CLASS if isinstance(cause, kind))
    return next(known, 502 if is_transient(cause) else 500)


def error_object(error: BaseException, *, private: bool) -> dict[str, JSON]:
    """The JSON of an error in OpenAI's shape; `code` is the error's class.

    Parameters
    ----------
    error : BaseException
    private : bool
        Whether the call may have been private: then nothing that a provider wrote stands in it, since that may repeat the prompt.
    """
    status = status_for(error)
    own = isinstance(error, ConfrouteError) and not isinstance(error, (TierError, StreamInterruptedError))
    if own:
        message = str(error)
    elif private or status == 500:
        message = f"the call failed ({named(error)})"
    else:
        message = str(error) if isinstance(error, ConfrouteError) else describe(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    code = error.code if isinstance(error, RefusedError) else type(error).__name__
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def failed(error: BaseException, *, private: bool = True) -> JSONResponse:
    """The answer to a call that failed."""
    wait_s = _wait_s(error)
    headers: Mapping[str, str] = {"retry-after": str(math.ceil(wait_s))} if 0 < wait_s < math.inf else {}
    return JSONResponse(error_object(error, private=private), status_for(error), headers)


def _cause(error: BaseException) -> BaseException:
    """What the tier that was asked last failed with: it may answer everything, so its error is the one that counts."""
    return _cause([*error.causes.values()][-1]) if isinstance(error, AllTiersFailedError) else error


def _wait_s(error: BaseException) -> float:
    cause = _cause(error)
    known = (getattr(cause, name, None) for name in ("wait_s", "renewed_in_s", "retry_in_s"))
    return next((wait_s for wait_s in known if wait_s is not None), None) or retry_after_s(cause)
