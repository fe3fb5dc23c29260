"""The errors that confroute raises on purpose.

::

    ConfrouteError
    ├── PolicyError (ValueError)            a policy, threshold or file that cannot be used
    │   └── CalibrationError                a calibration that its data cannot meet
    │       └── UnmetPromiseError           a loss that the recorded rows cannot promise
    ├── RequestError (ValueError)           a request that no model could answer
    ├── BadLogprobsError (ValueError)       log-probabilities that are not probabilities
    ├── SignalUnavailableError (RuntimeError)  one signal cannot be measured; the policy takes the next
    ├── NoSignalError (RuntimeError)        nothing could be measured, and the policy says "raise"
    ├── TierError                           a tier failed and no other one may answer
    │   ├── TierTimeoutError (TimeoutError)
    │   ├── DeadlineError (TimeoutError)    the time for the whole call is used up
    │   ├── BreakerOpenError (RuntimeError) too many failures lately: not asked
    │   ├── BudgetSpentError (RuntimeError) the answer could cost more than is left
    │   └── AllTiersFailedError             every tier that was tried failed
    ├── PrivacyError (RuntimeError)         private text would have left its tier; nothing was sent
    ├── StreamInterruptedError              a stream broke after its first chunk
    ├── ModelError (RuntimeError)           a local model cannot be found, downloaded or loaded
    │   ├── UnknownModelError (KeyError)
    │   ├── DownloadError (OSError)
    │   └── ChecksumError
    ├── StateError (RuntimeError)           the store of budgets and audits cannot be read or written
    ├── LogError (ValueError)               a file that is not a decision log
    ├── FormatError (ValueError)            a text that is not JSON, or a field that is not what its format says
    └── MissingExtraError (ImportError)     an optional dependency is not installed

Catch `ConfrouteError` for all of them. A `TierError` or `StreamInterruptedError` that tells of another error is also an instance of that
error's class: code that retries or falls back by class, or reads `status_code`, acts on it as on a bare model's. So neither is a
`RuntimeError`, which some of that code never retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar

from confroute.remediation import describe

E = TypeVar("E", bound=Exception)


class ConfrouteError(Exception):
    """Base class of all errors that confroute raises on purpose."""


def loggable(error: Exception) -> str:
    """Describe an error for a log: the text of other libraries' errors may repeat the prompt and is left out."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, ConfrouteError) else kind


class PolicyError(ConfrouteError, ValueError):
    """A policy, a threshold or a policy file that cannot be used."""


class CalibrationError(PolicyError):
    """A calibration target that the recorded data cannot meet; the message holds the numbers."""


class UnmetPromiseError(CalibrationError):
    """A loss that the recorded rows cannot promise.

    Parameters
    ----------
    message : str
    instead : mapping of str to JSON, optional
        What they can promise, as `confroute.fitting.Outlook.to_dict` says it; `confroute.fitting.fit` gives it.
    """

    def __init__(self, message: str, *, instead: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.instead = instead


class RequestError(ConfrouteError, ValueError):
    """A request that no model could answer, such as an empty conversation."""


class CallThresholdError(PolicyError, RequestError):
    """A threshold that was given for one call and that no gate of the policy can use."""


class BadLogprobsError(ConfrouteError, ValueError):
    """Log-probabilities that cannot be probabilities of the answer's tokens."""

    def __init__(
        self,
        *,
        position: int | None = None,
        value: float | None = None,
        count: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        if position is not None:
            msg = f"log-probability {value} at token {position}: expected a finite number of at most 0"
        else:
            msg = f"{count} log-probabilities for {output_tokens} generated tokens: expected one per token"
        super().__init__(msg)
        self.position, self.value, self.count, self.output_tokens = position, value, count, output_tokens


class SignalUnavailableError(ConfrouteError, RuntimeError):
    """A signal cannot be measured; a policy takes the next one, or does what its `on_no_signal` says."""


class NoSignalError(ConfrouteError, RuntimeError):
    """No uncertainty could be measured, and the policy's `on_no_signal` is "raise"."""


class TierError(ConfrouteError):
    """A tier failed, and the policy allows no other one to answer.

    Attributes
    ----------
    held_back : bool
        Whether the tier was not asked at all: nothing of it has failed, unless the error has a cause.
    """

    held_back: ClassVar[bool] = False


class TierTimeoutError(TierError, TimeoutError):
    """A tier did not answer within its time limit."""

    def __init__(self, *, tier: str, timeout_s: float) -> None:
        super().__init__(
            f"tier {tier!r} gave no answer within {timeout_s:g} s; raise its timeout_s or leave it to the next tier"
        )
        self.tier, self.timeout_s = tier, timeout_s


class DeadlineError(TierError, TimeoutError):
    """The time for the whole call is used up, or reserved for the next tier."""

    held_back: ClassVar[bool] = True

    def __init__(self, *, tier: str, left_s: float) -> None:
        super().__init__(
            f"no time is left to ask {tier!r} ({left_s:.3g} s until the deadline, less what is reserved for later tiers): "
            "give the call more time, or the tiers before it a smaller timeout_s"
        )
        self.tier, self.left_s = tier, left_s


class BreakerOpenError(TierError, RuntimeError):
    """A tier failed too often and is not asked until `retry_in_s` seconds have passed.

    `last_failure` is the class of the error that it failed with last, and what to do about it where that is known.
    """

    held_back: ClassVar[bool] = True

    def __init__(self, *, tier: str, failures: int, retry_in_s: float, last_failure: str = "") -> None:
        last = f", last with {last_failure}" if last_failure else ""
        super().__init__(
            f"tier {tier!r} failed {failures} times in a row{last}, and is not asked for another {retry_in_s:.3g} s"
        )
        self.tier, self.failures, self.retry_in_s = tier, failures, retry_in_s
        self.last_failure = last_failure


class BudgetSpentError(TierError, RuntimeError):
    """An answer could cost more than a budget has left; `keeps_draft`: whether the draft is returned instead.

    `wanted` is None where nothing is left for any answer, `renewed_in_s` where no new window begins.
    """

    held_back: ClassVar[bool] = True

    def __init__(
        self,
        *,
        budget: str,
        left: float,
        unit: str,
        wanted: float | None = None,
        renewed_in_s: float | None = None,
        keeps_draft: bool = False,
    ) -> None:
        takes = "" if wanted is None else f" and this call could take {wanted:.6g}"
        wait = "" if renewed_in_s is None else f", or wait {renewed_in_s:.0f} s for the next window"
        self.shortage = f"budget {budget!r} has {left:.6g} {unit} left{takes}"
        super().__init__(f"{self.shortage}: raise the budget{wait}")
        self.budget, self.wanted, self.left, self.unit = budget, wanted, left, unit
        self.renewed_in_s, self.keeps_draft = renewed_in_s, keeps_draft


class AllTiersFailedError(TierError):
    """Every tier that was tried failed; `causes` holds the errors by tier."""

    def __init__(self, causes: Mapping[str, BaseException]) -> None:
        listed = "; ".join(f"{tier}: {describe(error)}" for tier, error in causes.items())
        super().__init__(f"every tier failed ({listed})")
        self.causes = dict(causes)


class PrivacyError(ConfrouteError, RuntimeError):
    """A policy asked another tier although a rule had bound the call to one; nothing was sent."""

    def __init__(self, *, tier: str, bound_to: str) -> None:
        super().__init__(
            f"a rule keeps this call on {bound_to!r}, and the policy asked {tier!r}: refused, nothing was sent; "
            "the policy around the rules is wrong"
        )
        self.tier, self.bound_to = tier, bound_to


class StreamInterruptedError(ConfrouteError):
    """A stream broke after its first chunk, too late to change the route."""


class CallEndedError(BaseException):
    """Thrown into a policy whose answer nobody waits for any more, so that it can report and settle what was spent; it leaves no driver.

    No `Exception`, since whatever judges failures must not judge it. `stage` is "cancelled", or "abandoned" where the reader of a stream
    has left it.
    """

    def __init__(self, stage: Literal["cancelled", "abandoned"]) -> None:
        super().__init__(stage)
        self.stage: Literal["cancelled", "abandoned"] = stage


class ModelError(ConfrouteError, RuntimeError):
    """A local model cannot be found, downloaded, loaded or used."""


class UnknownModelError(ModelError, KeyError):
    """A name that is neither in the catalogue nor a path nor a hub name."""

    # KeyError prints the repr of its argument: a sentence would come out in quotes.
    __str__ = Exception.__str__


class DownloadError(ModelError, OSError):
    """A download failed, was interrupted or ran out of space; no partial file is kept."""


class ChecksumError(ModelError):
    """A downloaded file differs from the one that was expected."""

    def __init__(self, *, name: str, expected: str, found: str) -> None:
        super().__init__(
            f"{name}: SHA-256 is {found}, expected {expected}; the file was deleted. "
            f"Run `confroute pull {name}` again; if it repeats, the source has changed."
        )
        self.name, self.expected, self.found = name, expected, found


class StateError(ConfrouteError, RuntimeError):
    """The store of budgets and audits cannot be read or written."""


class LogError(ConfrouteError, ValueError):
    """A file that is not a decision log, or one that cannot be written."""


class FormatError(ConfrouteError, ValueError):
    """A text that is not strict JSON, or a field that is not what its format says; `line` counts from 1 within the text."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


class MissingExtraError(ConfrouteError, ImportError):
    """An optional dependency is not installed; the message holds the command that installs it, and nothing more than it."""

    def __init__(self, *, needed_for: str, extra: str = "", package: str = "") -> None:
        wanted = package or f"'confroute[{extra}]'"
        super().__init__(f"{needed_for} needs an optional dependency: pip install {wanted}")
        self.extra, self.package = extra, package


def also_as(error: E, cause: Exception) -> E:
    """The same error, also an instance of its cause's class and with its cause's attributes.

    Examples
    --------
    >>> both = also_as(TierError("cloud failed"), KeyError("choices"))
    >>> isinstance(both, TierError), isinstance(both, KeyError), str(both)
    (True, True, 'cloud failed')
    """
    kinds: tuple[Any, Any] = (type(error), type(cause))
    both = _both(*kinds)
    if both is None:
        return error
    joined = _joined(both, error.args, {**cause.__dict__, **error.__dict__})
    if isinstance(cause, OSError):
        joined.errno, joined.strerror = cause.errno, cause.strerror
    made: E = joined
    return made


@lru_cache(maxsize=256)
def _both(kind: Any, other: Any) -> type[Exception] | None:
    """A class that is both; None where there is none, or where Python gives the other one a meaning of its own."""
    if issubclass(kind, other) or issubclass(other, (StopIteration, StopAsyncIteration)):
        return None
    bases = (other,) if issubclass(other, kind) else (kind, other)
    own: dict[str, Any] = {
        "__str__": Exception.__str__,
        "__repr__": Exception.__repr__,
        "__reduce__": lambda error: (_unpickled, (kind, other, error.args, error.__dict__)),
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
    }
    try:
        both = type(kind.__name__, bases, own)
        _joined(both, ("",), {})
    # It may not be derived from, or not together with another one, or needs more than a message.
    except TypeError:
        return None
    return both


def _joined(both: type[Exception], args: tuple[Any, ...], state: Mapping[str, Any]) -> Any:
    # The constructors of both want what only their callers have; Python's own class below them makes room for its members.
    builtin: Any = both
    while builtin.__module__ != "builtins":
        builtin = builtin.__base__
    made: Any = builtin.__new__(both, *args)
    made.args = args
    made.__dict__.update(state)
    return made


def _unpickled(kind: Any, other: Any, args: tuple[Any, ...], state: Mapping[str, Any]) -> Any:
    return _joined(_both(kind, other) or kind, args, state)
