"""The controller: which threshold makes the budget last the window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from confroute.errors import CalibrationError, PolicyError
from confroute.policy.files import register

RUNGS = 41
# Weight of what was expected against what was seen, as a share of the window.
_PRIOR = 0.1
# Nothing is concluded from less of the window than this, where nothing was expected.
_LEAST_SEEN = 0.02


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a budget moves the threshold of one signal.

    Parameters
    ----------
    signal : str
        Name of the signal whose threshold moves.
    ladder : tuple of float
        Thresholds from the one that sends most calls to the cloud to the one that sends fewest, at equal steps of cloud
        share; two are enough, quantiles of recorded uncertainties are better (`Pace.fit`). The threshold never leaves
        it.
    start : float in [0, 1]
        Where on the ladder the first calls begin.
    step : float in (0, 1]
        How far along the ladder one call may move it.
    expected_calls : float or None
        Calls of a whole window; what the last window had where not given.
    profile : tuple of float
        Relative traffic of equal parts of the window, such as 24 hours; even where empty.

    Raises
    ------
    PolicyError
        A ladder that does not rise, or a number out of range.

    Notes
    -----
    With B left, c the mean cost of a cloud call so far and N the calls still expected, the share of calls that may
    go to the cloud is s = B / (c N). The level on the ladder goes to 1 - s + trim, at most `step` a call; the trim
    moves by step / 4 times (sent - s) a call, which corrects a ladder that no longer fits the traffic (the update of
    adaptive conformal inference, Gibbs and Candes 2021, arXiv 2106.00170). Both s and the trim move slowly, and the
    level follows without overshoot: nothing here can oscillate faster than the traffic does.
    """

    signal: str
    ladder: tuple[float, ...]
    start: float = 0.5
    step: float = 0.005
    expected_calls: float | None = None
    profile: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rises = all(a <= b for a, b in zip(self.ladder, self.ladder[1:], strict=False))
        if len(self.ladder) < 2 or not rises or not all(map(math.isfinite, self.ladder)):
            msg = f"ladder is {self.ladder}: expected two or more finite thresholds, rising"
            raise PolicyError(msg)
        if not 0 <= self.start <= 1 or not 0 < self.step <= 1:
            msg = f"start={self.start}, step={self.step}: expected a start in [0, 1] and a step in (0, 1]"
            raise PolicyError(msg)
        if any(part < 0 for part in self.profile) or (self.profile and not sum(self.profile) > 0):
            msg = f"profile is {self.profile}: expected parts of 0 or more, not all 0"
            raise PolicyError(msg)

    @classmethod
    def fit(
        cls,
        signal: str,
        uncertainty: Sequence[float],
        *,
        cloud_share: float = 0.5,
        expected_calls: float | None = None,
        profile: tuple[float, ...] = (),
    ) -> Pace:
        """A ladder of quantiles of recorded uncertainties.

        Parameters
        ----------
        signal : str
        uncertainty : sequence of float
            One per recorded call, at least 8.
        cloud_share : float in [0, 1]
            Share of calls to begin with.
        expected_calls, profile
            As in the class.

        Raises
        ------
        CalibrationError
            Fewer than 8 values, or values that are no numbers.

        Examples
        --------
        >>> Pace.fit("token_logprob", [0.1 * k for k in range(11)], cloud_share=0.3).threshold(0.7)
        0.7
        """
        values = np.asarray(uncertainty, dtype=np.float64)
        if values.size < 8 or not np.isfinite(values).all():
            msg = f"{values.size} recorded uncertainties, {int(np.isfinite(values).sum())} of them finite: expected at least 8, all finite"
            raise CalibrationError(msg)
        rungs = np.quantile(values, np.linspace(0, 1, RUNGS))
        return cls(
            signal=signal,
            ladder=tuple(float(round(rung, 12)) for rung in rungs),
            start=1 - cloud_share,
            expected_calls=expected_calls,
            profile=profile,
        )

    def threshold(self, level: float) -> float:
        """The threshold at a level of the ladder, between rungs by interpolation."""
        place = min(1.0, max(0.0, level)) * (len(self.ladder) - 1)
        below = min(int(place), len(self.ladder) - 2)
        low, high = self.ladder[below], self.ladder[below + 1]
        return round(low + (high - low) * (place - below), 12)

    def passed(self, part: float) -> float:
        """Share of the window's traffic in its first `part`, both in [0, 1]."""
        if not self.profile:
            return part
        place = part * len(self.profile)
        whole = min(int(place), len(self.profile) - 1)
        seen = sum(self.profile[:whole]) + self.profile[whole] * (place - whole)
        return seen / sum(self.profile)

    def share(self, record: dict[str, Any], part: float, left: float) -> float | None:
        """Share of calls that may go to the cloud, in [0, 1]; None while too little is known."""
        if not record["sent"]:
            return None
        seen, expected = self.passed(part), self.expected_calls or record["last_calls"]
        if expected:
            calls = (expected * _PRIOR + record["calls"]) / (_PRIOR + seen)
        elif seen < _LEAST_SEEN:
            return None
        else:
            calls = record["calls"] / seen
        to_come = max(calls * (1 - seen), 1.0)
        mean = record["spent_by_sent"] / record["sent"]
        return min(1.0, max(0.0, left / (mean * to_come))) if mean > 0 else 1.0

    def moved(self, record: dict[str, Any], part: float, left: float, *, sent: bool) -> None:
        """Move the level of `record` after one more call."""
        share = self.share(record, part, left)
        if share is None:
            return
        level, trim = record["level"], record["trim"]
        wound = (level <= 0 and not sent) or (level >= 1 and sent)
        if not wound:
            trim = min(1.0, max(-1.0, trim + self.step / 4 * ((1.0 if sent else 0.0) - share)))
        wanted = min(1.0, max(0.0, 1 - share + trim))
        record["level"] = level + min(self.step, max(-self.step, wanted - level))
        record["trim"] = trim
