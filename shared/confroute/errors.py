"""Everything confroute raises on purpose.

::

    ConfrouteError
    ├── PolicyError (ValueError)            a policy, threshold or file that cannot be used
    │   └── CalibrationError                a calibration that its data cannot meet
    ├── RequestError (ValueError)           a request no model could answer
    ├── BadLogprobsError (ValueError)       log-probabilities that are not probabilities
    ├── SignalUnavailableError (RuntimeError)  one signal's evidence is not to be had; the policy goes on
    ├── NoSignalError (RuntimeError)        no evidence was to be had, and the policy says "raise"
    ├── TierError (RuntimeError)            one tier failed and nothing may stand in for it
    │   ├── TierTimeoutError (TimeoutError)
    │   ├── DeadlineError (TimeoutError)    the caller's time for the whole call is used up
    │   ├── BreakerOpenError                too many failures lately: not asked
    │   ├── BudgetSpentError                the answer could cost more than is left
    │   └── AllTiersFailedError             every tier that was tried failed
    ├── PrivacyError (RuntimeError)         private text was about to leave its tier, and did not
    ├── StreamInterruptedError (RuntimeError)  a stream broke after its first chunk
    ├── ModelError (RuntimeError)           a local model cannot be had or loaded
    │   ├── UnknownModelError (KeyError)
    │   ├── DownloadError (OSError)
    │   └── ChecksumError
    ├── StateError (RuntimeError)           the store of budgets and audits cannot be read or written
    ├── LogError (ValueError)               a file that is no decision log
    └── MissingExtraError (ImportError)     an optional dependency is not installed

Catch `ConfrouteError` for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confroute.remediation import describe

_KEY = "_confroute_lost_s"


def note_latency(error: Exception, since: float) -> None:
    """Note on `error` how long it took to come, from `since` on, a `time.perf_counter()`."""
    # Not setattr: an error that is a frozen dataclass refuses that.
    error.__dict__[_KEY] = time.perf_counter() - since


def noted_latency_s(error: Exception) -> float:
    """Seconds that were noted on an error or on what it was raised from; 0 where none were.

    Examples
    --------
    >>> noted_latency_s(ValueError())
    0.0
    """
    noted = error.__dict__.get(_KEY)
    if noted is not None:
        return float(noted)
    return noted_latency_s(error.__cause__) if isinstance(error.__cause__, Exception) else 0.0


class ConfrouteError(Exception):
    """Base class of all errors confroute raises on purpose."""


def loggable(error: Exception) -> str:
    """An error as a log may hold it: the words of others' errors may repeat the prompt."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, ConfrouteError) else kind


class PolicyError(ConfrouteError, ValueError):
    """A policy, a threshold or a policy file that cannot be used."""


class CalibrationError(PolicyError):
    """A calibration target that the recorded data cannot meet; the message holds the numbers."""


class RequestError(ConfrouteError, ValueError):
    """A request that no model could answer, such as an empty conversation."""


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
            msg = f"{count} log-probabilities for {output_tokens} generated tokens: expected one a token"
        super().__init__(msg)
        self.position, self.value, self.count, self.output_tokens = position, value, count, output_tokens


class SignalUnavailableError(ConfrouteError, RuntimeError):
    """One signal cannot be measured here; a policy takes the next one, or its `on_no_signal`."""


class NoSignalError(ConfrouteError, RuntimeError):
    """No uncertainty could be measured and the policy's `on_no_signal` is "raise"."""


class TierError(ConfrouteError, RuntimeError):
    """A tier failed and the policy allows no other tier to answer."""


class TierTimeoutError(TierError, TimeoutError):
    """A tier did not answer within its time limit."""

    def __init__(self, *, tier: str, timeout_s: float) -> None:
        super().__init__(
            f"tier {tier!r} gave no answer within {timeout_s:g} s; raise its timeout_s or leave it to the next tier"
        )
        self.tier, self.timeout_s = tier, timeout_s


class DeadlineError(TierError, TimeoutError):
    """The time that the caller gave the whole call is used up, or kept back for the next tier."""

    def __init__(self, *, tier: str, left_s: float) -> None:
        super().__init__(
            f"no time is left to ask {tier!r} ({left_s:.3g} s until the deadline, less what is kept back): "
            "give the call more time, or the tiers before it a smaller timeout_s"
        )
        self.tier, self.left_s = tier, left_s


class BreakerOpenError(TierError):
    """A tier failed too often lately and is not asked until `retry_in_s` seconds have passed."""

    def __init__(self, *, tier: str, failures: int, retry_in_s: float) -> None:
        super().__init__(
            f"tier {tier!r} failed {failures} times in a row and is not asked for another {retry_in_s:.3g} s"
        )
        self.tier, self.failures, self.retry_in_s = tier, failures, retry_in_s


class BudgetSpentError(TierError):
    """The most that an answer could cost is more than a budget has left; `keeps_draft` says what the budget wants."""

    def __init__(
        self,
        *,
        budget: str,
        wanted: float,
        left: float,
        unit: str,
        renewed_in_s: float,
        keeps_draft: bool = False,
    ) -> None:
        super().__init__(
            f"budget {budget!r} has {left:.6g} {unit} left and this call could take {wanted:.6g}: "
            f"raise the budget, or wait {renewed_in_s:.0f} s for the next window"
        )
        self.budget, self.wanted, self.left, self.unit = budget, wanted, left, unit
        self.renewed_in_s, self.keeps_draft = renewed_in_s, keeps_draft


class AllTiersFailedError(TierError):
    """Every tier that was tried failed; `causes` holds each error by tier name."""

    def __init__(self, causes: Mapping[str, BaseException]) -> None:
        listed = "; ".join(f"{tier}: {describe(error)}" for tier, error in causes.items())
        super().__init__(f"every tier failed ({listed})")
        self.causes = dict(causes)


class PrivacyError(ConfrouteError, RuntimeError):
    """A policy asked another tier after a rule had bound the call to one; nothing was sent."""

    def __init__(self, *, tier: str, bound_to: str) -> None:
        super().__init__(
            f"a rule keeps this call on {bound_to!r}, and the policy asked {tier!r}: refused, nothing was sent; "
            "this is a mistake in the policy around the rules"
        )
        self.tier, self.bound_to = tier, bound_to


class StreamInterruptedError(ConfrouteError, RuntimeError):
    """A stream broke after its first chunk, too late to change the route."""


class ModelError(ConfrouteError, RuntimeError):
    """A local model cannot be had, loaded or used."""


class UnknownModelError(ModelError, KeyError):
    """A name that is neither in the catalogue, nor a path, nor a hub name."""

    # KeyError prints the repr of its argument: a sentence would come out in quotes.
    __str__ = Exception.__str__


class DownloadError(ModelError, OSError):
    """A download failed, was interrupted or found no space; nothing half-written is kept."""


class ChecksumError(ModelError):
    """A downloaded file is not the file that was expected."""

    def __init__(self, *, name: str, expected: str, found: str) -> None:
        super().__init__(
            f"{name}: SHA-256 is {found}, expected {expected}; the file was deleted. "
            f"Run `confroute pull {name}` again; if it repeats, the source has changed."
        )
        self.name, self.expected, self.found = name, expected, found


class StateError(ConfrouteError, RuntimeError):
    """The store that budgets and audits stand in cannot be read or written."""


class LogError(ConfrouteError, ValueError):
    """A file that is no decision log."""


class MissingExtraError(ConfrouteError, ImportError):
    """An optional dependency is not installed; the message holds the command that installs it, and nothing more than it."""

    def __init__(self, *, needed_for: str, extra: str = "", package: str = "") -> None:
        wanted = package or f"'confroute[{extra}]'"
        super().__init__(f"{needed_for} needs an optional dependency: pip install {wanted}")
        self.extra, self.package = extra, package
