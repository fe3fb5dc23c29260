"""A sequential test for drift: it may be read after every audit, for ever, and still keeps its false-alarm rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confroute.errors import PolicyError
from confroute.reading import number, numbers, refused, whole
from confroute.registry import register

# Bets as shares of 1 / level, the largest stake that cannot lose everything.
BETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTest:
    """Raises an alarm once the audited losses prove that the mean loss of kept answers is above `level`.

    Parameters
    ----------
    level : float in (0, 1)
        The promised mean loss, such as a certificate's.
    false_alarm : float in (0, 1)
        Probability of ever raising an alarm while the promise holds, over any number of audits.

    Raises
    ------
    PolicyError
        A number out of range.

    Notes
    -----
    An e-process: the wealth of a gambler who, from a possible change point s on, stakes the share b of the largest
    stake 1 / level on each loss L, prod (1 + (b / level) (L - level)). Its expectation never grows while the mean loss
    is at most `level`, whatever the losses depend on. The same holds for its average over six bets and over all change
    points s with the prior weights 1/(1 + ln s) - 1/(1 + ln(s + 1)), which sum to 1. By Ville's inequality it ever
    reaches 1 / false_alarm with probability at most false_alarm. The sum over s needs one number per bet (a weighted
    Shiryaev-Roberts recursion), so the state does not grow. The bets follow Waudby-Smith and Ramdas (JRSS B 2024, arXiv
    2010.09686), the change points Shin, Ramdas and Rinaldo (arXiv 2203.03532), whose weights bound how often alarms
    come; weights that sum to 1 bound whether one ever does.

    Examples
    --------
    >>> test = DriftTest(level=0.05, false_alarm=0.05)
    >>> test.first_alarm([0.0] * 1000) is None, test.first_alarm([0.0] * 100 + [1.0] * 100)
    (True, 106)
    """

    level: float
    false_alarm: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or not 0 < self.false_alarm < 1:
            msg = f"level={self.level}, false_alarm={self.false_alarm}: expected both between 0 and 1"
            raise PolicyError(msg)

    def begin(self) -> dict[str, Any]:
        """The state before the first audit, as JSON."""
        return {"audits": 0, "lost": 0.0, "wealth": [0.0] * len(BETS), "alarm_at": None}

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a stored state that no test wrote.

        Raises
        ------
        FormatError
            The message names the field.
        """
        whole(state.get("audits"), "audits")
        number(state.get("lost"), "lost", low=0)
        if len(numbers(state.get("wealth"), "wealth")) != len(BETS):
            raise refused("wealth", state.get("wealth"), f"{len(BETS)} numbers")
        # None stands there before an alarm, and nothing is no None.
        if state.get("alarm_at", 0) is not None:
            whole(state.get("alarm_at"), "alarm_at", low=1)

    def update(self, state: dict[str, Any], loss: float) -> dict[str, Any]:
        """Return the state after one more audited loss in [0, 1]; an alarm stays.

        Raises
        ------
        ValueError
            The loss is outside [0, 1].
        """
        if not 0 <= loss <= 1:
            msg = f"the audited loss is {loss}: expected a number in [0, 1]"
            raise ValueError(msg)
        audits = state["audits"] + 1
        weight = unspent(audits - 1) - unspent(audits)
        wealth = [
            (held + weight) * (1 + bet / self.level * (loss - self.level))
            for held, bet in zip(state["wealth"], BETS, strict=True)
        ]
        alarm_at = state["alarm_at"]
        if alarm_at is None and self._evidence(wealth, audits) >= 1 / self.false_alarm:
            alarm_at = audits
        return {"audits": audits, "lost": state["lost"] + loss, "wealth": wealth, "alarm_at": alarm_at}

    def evidence(self, state: dict[str, Any]) -> float:
        """The e-value so far; the alarm is raised when it reaches 1 / false_alarm."""
        return self._evidence(state["wealth"], state["audits"])

    def first_alarm(self, losses: Sequence[float]) -> int | None:
        """Number of these losses after which the alarm is raised; None if it is not."""
        state = self.begin()
        for loss in losses:
            state = self.update(state, loss)
            if state["alarm_at"] is not None:
                return int(state["alarm_at"])
        return None

    def _evidence(self, wealth: Sequence[float], audits: int) -> float:
        return sum(wealth) / len(wealth) + unspent(audits)


def unspent(audits: int) -> float:
    """Prior weight of all change points after this many audits."""
    return 1 / (1 + math.log(audits + 1))
