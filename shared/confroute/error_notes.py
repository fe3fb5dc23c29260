"""What is known of a failed call, carried by its error from where it is found out to where steps are kept."""

from __future__ import annotations

from collections.abc import Sequence

from confroute.clock import now
from confroute.decision import Decision
from confroute.types import Usage

_KEY, _BILL, _ATTEMPTS = "_confroute_lost_s", "_confroute_billed", "_confroute_attempts"
_INNER, _ANSWERED = "_confroute_inner", "_confroute_answered"


def note_answer(error: BaseException, usage: Usage | None) -> None:
    """Note on an error that it is about an answer that came, with its bill: the model is not down."""
    error.__dict__[_ANSWERED] = True
    note_usage(error, usage)


def is_about_answer(error: BaseException) -> bool:
    """Whether `note_answer` noted that an answer came."""
    return bool(error.__dict__.get(_ANSWERED))


def note_inner(error: BaseException, decisions: Sequence[Decision]) -> None:
    """Note on an error the decisions of routers inside the call that ended in it."""
    if decisions:
        error.__dict__[_INNER] = tuple(decisions)


def noted_inner(error: BaseException) -> tuple[Decision, ...]:
    """The decisions that `note_inner` noted on an error."""
    inner: tuple[Decision, ...] = error.__dict__.get(_INNER, ())
    return inner


def note_usage(error: BaseException, usage: Usage | None) -> None:
    """Note on an error what was billed although it came."""
    if usage is not None:
        error.__dict__[_BILL] = usage


def noted_usage(error: BaseException) -> Usage | None:
    """What `note_usage` noted on an error; None where nothing was billed, as far as is known."""
    usage: Usage | None = error.__dict__.get(_BILL)
    return usage


def forget_bill(error: BaseException) -> None:
    """Take off an error what was billed and decided, once a step holds it: the same object may be raised by another call."""
    error.__dict__.pop(_BILL, None)
    error.__dict__.pop(_INNER, None)


def note_attempts(error: BaseException, attempts: int) -> None:
    """Note on an error how many attempts ended in it."""
    error.__dict__[_ATTEMPTS] = attempts


def noted_attempts(error: BaseException) -> int:
    """Attempts that `note_attempts` noted on an error; 1 where there is no note.

    Examples
    --------
    >>> noted_attempts(ValueError())
    1
    """
    return int(error.__dict__.get(_ATTEMPTS, 1))


def note_latency(error: BaseException, since: float) -> None:
    """Note on an error how long it took to come, since a `clock.now()`."""
    # Not setattr: an error that is a frozen dataclass refuses it.
    error.__dict__[_KEY] = now() - since


def noted_latency_s(error: BaseException) -> float:
    """Seconds that `note_latency` noted on an error or on its cause; 0 where there are none.

    Examples
    --------
    >>> noted_latency_s(ValueError())
    0.0
    """
    noted = error.__dict__.get(_KEY)
    if noted is not None:
        return float(noted)
    return noted_latency_s(error.__cause__) if isinstance(error.__cause__, Exception) else 0.0
