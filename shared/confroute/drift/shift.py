"""Whether calls are still like the recorded ones, told by the uncertainties alone: no grade and no second answer is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from confroute.decision import Decision, Measurement
from confroute.errors import PolicyError
from confroute.policy.gate import Gate
from confroute.policy.provenance import Provenance, as_array
from confroute.registry import parts_of
from confroute.stats.two_sample import ks_p_value
from confroute.types import JSON, TIERS

# One false alarm in a hundred tests of calls that are like the recorded ones.
FALSE_ALARM = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far the uncertainties of some calls are from those of the recorded ones.

    Attributes
    ----------
    signal : str
        The signal that was compared.
    n, recorded : int
        Calls that were compared, and recorded ones.
    measured : float in [0, 1]
        Share of the n calls on which the signal could be measured at all.
    distance : float in [0, 1]
        Largest difference between both cumulative distributions, at the quantiles in the policy.
    p_value : float in [0, 1]
        Probability of a distance as large, or larger, if these calls are like the recorded ones.
    false_alarm : float in (0, 1)
        Highest share of tests of calls like the recorded ones that say they are not.
    """

    signal: str
    n: int
    recorded: int
    measured: float
    distance: float
    p_value: float
    false_alarm: float = FALSE_ALARM

    @property
    def like_recorded(self) -> bool:
        """Whether nothing speaks against it; a shift that leaves the uncertainties as they were cannot be seen here."""
        return self.p_value > self.false_alarm

    @property
    def words(self) -> str:
        """The finding in one sentence."""
        found = "nothing says that these calls are not" if self.like_recorded else "these calls are not"
        # Below that, the p-value is a difference of numbers that are alike to the last digit.
        p = f"p = {self.p_value:.2g}" if self.p_value > 1e-12 else "p < 1e-12"
        unmeasured = "" if self.measured else f"; {self.signal} was measured on none of them"
        return (
            f"{found} like the recorded ones: {self.signal} of {self.n} calls is {self.distance:.2f} from that of {self.recorded} "
            f"recorded ones (Kolmogorov-Smirnov, {p}; at most {self.false_alarm:.0%} false alarms){unmeasured}"
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "signal": self.signal,
            "like_recorded": self.like_recorded,
            "n": self.n,
            "recorded": self.recorded,
            "measured": round(self.measured, 6),
            "distance": round(self.distance, 6),
            "p_value": self.p_value,
            "false_alarm": self.false_alarm,
        }


def like_recorded(
    policy: object, uncertainties: Iterable[float | None], *, false_alarm: float = FALSE_ALARM
) -> Shift | None:
    """Test whether calls are like those that a policy was fitted on, by the uncertainties of its first signal.

    Parameters
    ----------
    policy : Policy
        A fitted one, with whatever stands around it.
    uncertainties : iterable of float or None
        One per call whose draft was judged, such as `measured_by` takes from decisions; None where the signal was not measured.
    false_alarm : float in (0, 1)
        Highest probability of telling a shift where there is none; of one test, not of one repeated as calls come.

    Returns
    -------
    Shift or None
        None if the policy holds no distribution to compare with (it was not fitted, or by an earlier version), or there are no calls.

    Raises
    ------
    PolicyError
        A `false_alarm` outside (0, 1).

    Notes
    -----
    The two-sample Kolmogorov-Smirnov test with its exact null distribution. It is read at the kept quantiles only, where the
    distance can but be smaller, and ties make it smaller too: false alarms are at most as many as stated.

    Examples
    --------
    >>> from confroute.fitting import CloudShare, fit
    >>> from confroute.recording import Row, Side
    >>> rows = [Row(id=str(i), edge=Side(text="7", logprobs=(-i / 400,), quality=1.0)) for i in range(400)]
    >>> policy = fit(rows, CloudShare(share=0.3), signal="token_logprob.mean").policy
    >>> like_recorded(policy, [i / 60 for i in range(60)]).like_recorded
    True
    >>> like_recorded(policy, [1 + i / 60 for i in range(60)]).like_recorded
    False
    """
    if not 0 < false_alarm < 1:
        msg = f"false_alarm is {false_alarm}: expected a probability between 0 and 1"
        raise PolicyError(msg)
    recorded = next((part for part in parts_of(policy) if isinstance(part, Provenance)), None)
    new = as_array(uncertainties)
    if recorded is None or not recorded.uncertainty or new.size == 0:
        return None
    kept = recorded.uncertainty[0]
    distance = kept.distance(new)
    return Shift(
        signal=kept.signal,
        n=new.size,
        recorded=kept.n,
        measured=float(np.isfinite(new).mean()),
        distance=distance,
        p_value=ks_p_value(distance, new.size, kept.n),
        false_alarm=false_alarm,
    )


def measured_by(policy: object, decisions: Iterable[Decision]) -> list[float | None]:
    """Take the uncertainties of the first tier's drafts by a policy's first signal from decisions, for `like_recorded`.

    Parameters
    ----------
    policy : Policy
    decisions : iterable of Decision
        Those without a draft, such as of calls that a rule or the caller sent somewhere, are left out.

    Returns
    -------
    list of float or None
        None where a draft was made and the signal could not be measured on it.
    """
    measured = measuring(policy)
    return [uncertainty for one in decisions for uncertainty in measured(one)]


def measuring(policy: object) -> Callable[[Decision], list[float | None]]:
    """Make the function that does for one decision what `measured_by` does for many: it returns one uncertainty, or none at all."""
    gate = next((part for part in parts_of(policy) if isinstance(part, Gate)), None)
    first: str = getattr(policy, "tiers", TIERS)[0]

    def measured(one: Decision) -> list[float | None]:
        if gate is None or not any(step.kind == "draft" for step in one.steps):
            return []
        found = _of_first(one, gate.signal.name, first)
        return [None if found is None else found.uncertainty]

    return measured


def _of_first(decision: Decision, signal: str, first: str) -> Measurement | None:
    """What the first tier's draft was measured at: where a later one was judged too, that has the signal's own name."""
    drafted = {step.tier for step in decision.steps if step.kind == "draft" and step.error is None}
    only = drafted <= {first, None}
    return decision.signals.get(signal if only else f"{first}/{signal}")
