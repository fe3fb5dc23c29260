"""Said once a process: the thresholds that decide were fitted to nobody's models."""

from __future__ import annotations

import functools
import logging

from confroute.decision import Decision
from confroute.policy.threshold import DEFAULT_SOURCE

_log = logging.getLogger("confroute")


def hint(decision: Decision) -> None:
    """Say how to calibrate, at the first decision that an uncalibrated default settles."""
    if decision.threshold_source == DEFAULT_SOURCE:
        say_once()


@functools.cache
def say_once() -> None:
    """The hint itself."""
    _log.warning(
        "routing by uncalibrated default thresholds, which were fitted to nobody's models: record your own calls "
        "(confroute record) and fit a policy (confroute fit), or let one learn while it routes "
        "(confroute.learning.LearnOnline). Every such decision says so; this is said once."
    )
