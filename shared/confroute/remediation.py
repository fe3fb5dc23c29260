"""What to do about the most common failures, whichever client library raised them."""

from __future__ import annotations

from collections.abc import Iterator

_BY_STATUS = {
    401: "the key is missing or wrong: give it to the model, or set its environment variable (a server of your own usually accepts "
    "any text as the key)",
    403: "the key may not do this: check its rights, and the model's name",
    404: "no such model or path there: check the model's name and the base URL",
    429: "the provider's rate limit is reached: wait, or ask for a higher limit",
}
_NOBODY = "nothing answers there: is the server running, and is the base URL right?"


def next_step(error: BaseException) -> str:
    """Return what to do about an error; empty where nothing is known.

    Looks at HTTP statuses and at class names, which are alike in all client libraries, of the error and of its causes: hosts wrap the
    errors of their clients.

    Examples
    --------
    >>> next_step(ConnectionRefusedError(111, "refused"))
    'nothing answers there: is the server running, and is the base URL right?'
    >>> next_step(ValueError("no"))
    ''
    """
    for cause in _causes(error):
        status = getattr(cause, "status_code", None) or getattr(
            getattr(cause, "response", None), "status_code", None
        )
        if status in _BY_STATUS:
            return _BY_STATUS[status]
        if type(cause).__name__.endswith(("ConnectionError", "ConnectError", "ConnectionRefusedError")):
            return _NOBODY
    return ""


def failure(tier: str, error: BaseException) -> str:
    """Describe for a decision why a tier gave no answer, without the error's text, which may repeat the prompt.

    Examples
    --------
    >>> failure("edge", ValueError("?"))
    'edge failed (ValueError)'
    """
    return f"{_what_happened(tier, error)} ({named(error)})"


def full_failure(tier: str, error: BaseException) -> str:
    """`failure` with the error's text, for an exception's message.

    Examples
    --------
    >>> full_failure("edge", ValueError("no"))
    'edge failed (ValueError: no)'
    """
    return f"{_what_happened(tier, error)} ({describe(error)})"


def _what_happened(tier: str, error: BaseException) -> str:
    # One that comes after an attempt has that attempt's error as its cause.
    held_back = getattr(error, "held_back", False) and error.__cause__ is None
    return f"{tier} was not asked" if held_back else f"{tier} failed"


def named(error: BaseException) -> str:
    """Name an error's class, the budget that was short, the failure that a breaker opened for, and what to do about it.

    Examples
    --------
    >>> named(ConnectionRefusedError(111, "refused"))
    'ConnectionRefusedError; nothing answers there: is the server running, and is the base URL right?'
    """
    if shortage := getattr(error, "shortage", ""):
        return f"{type(error).__name__}: {shortage}"
    last = getattr(error, "last_failure", "")
    return f"{type(error).__name__}{f' after {last}' if last else _after(error)}"


def describe(error: BaseException) -> str:
    """Describe an error with its text, for an exception's message.

    Examples
    --------
    >>> describe(ValueError("no"))
    'ValueError: no'
    """
    return f"{type(error).__name__}: {error}{_after(error)}"


def _after(error: BaseException) -> str:
    step = next_step(error)
    return f"; {step}" if step else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__
