"""The seconds that an ask took before it failed, carried by its error from where clocks are read to where steps are kept."""

from __future__ import annotations

import time

_KEY = "_confroute_lost_s"


def lose(error: Exception, since: float) -> None:
    """Note on `error` how long it took to come, from `since` on, a `time.perf_counter()`."""
    # Not setattr: an error that is a frozen dataclass refuses that.
    error.__dict__[_KEY] = time.perf_counter() - since


def lost_s(error: Exception) -> float:
    """Seconds that were noted on an error or on what it was raised from; 0 where none were.

    Examples
    --------
    >>> lost_s(ValueError())
    0.0
    """
    noted = error.__dict__.get(_KEY)
    if noted is not None:
        return float(noted)
    return lost_s(error.__cause__) if isinstance(error.__cause__, Exception) else 0.0
