"""How long a provider asks to wait before it is called again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any


def retry_after_s(error: BaseException | None) -> float:
    """Seconds that the provider asked to wait, by the headers of the answer that an error stands for; 0 where it did not.

    `retry-after-ms` goes before `Retry-After`, since it is the finer one. `Retry-After` is a number of seconds or an HTTP date, whose
    distance is taken from the answer's own `Date` where it has one: two machines' clocks may differ by more than the wait.

    Parameters
    ----------
    error : BaseException or None
        What a client raised. Clients that wrap an error are looked through (`__cause__`).

    Examples
    --------
    >>> from confroute.testing import faults
    >>> retry_after_s(faults.rate_limited(retry_after_s=1.5)), retry_after_s(ValueError("no answer at all"))
    (1.5, 0.0)
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        wait_s = _asked_s(_headers(error))
        if wait_s is None:
            wait_s = _number(getattr(error, "retry_after_s", None))
        if wait_s is not None:
            return max(0.0, wait_s)
        error = error.__cause__
    return 0.0


def _headers(error: BaseException) -> dict[str, str]:
    """The headers of an error's answer by lower-case name: of httpx, requests, botocore, or the error itself (aiohttp, urllib)."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, Mapping):
        about = response.get("ResponseMetadata")
        headers: Any = about.get("HTTPHeaders") if isinstance(about, Mapping) else None
    else:
        headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    items = getattr(headers, "items", None)
    pairs = items() if callable(items) else ()
    return {_text(name).lower(): _text(value) for name, value in pairs} if isinstance(pairs, Iterable) else {}


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _asked_s(headers: Mapping[str, str]) -> float | None:
    wait_ms = _number(headers.get("retry-after-ms"))
    if wait_ms is not None:
        return wait_ms / 1000
    wait = headers.get("retry-after")
    wait_s = _number(wait)
    if wait_s is not None:
        return wait_s
    until = _date(wait)
    if until is None:
        return None
    now = _date(headers.get("date"))
    return until.timestamp() - (time.time() if now is None else now.timestamp())


def _number(value: object) -> float | None:
    if not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _date(value: str | None) -> datetime | None:
    """An HTTP date, also in the two forms that are obsolete; these and `-0000` name no zone, and mean UTC."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    # What is no date raises any of these, by version and by what is wrong with it.
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
