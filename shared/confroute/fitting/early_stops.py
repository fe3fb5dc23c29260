"""Whether draws that stop early decide recorded calls as whole draws would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from confroute.fitting.rates import Rates
from confroute.fitting.replay import Progress, ReplayedCall, replay
from confroute.flow import Policy
from confroute.policy import Cascade
from confroute.policy.wrapper import inner_of
from confroute.recording import Row
from confroute.registry import parts_of
from confroute.signals import BetaBinomial, Combined, EwensMixture, SelfConsistency, SemanticEntropy, Signal
from confroute.stats.tails import binomial_cdf
from confroute.types import JSON

Prior: TypeAlias = BetaBinomial | EwensMixture
# One false alarm in a hundred runs whose calls are like those of the prior.
_FALSE_ALARM = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStops:
    """How often stopping early led to another route than the whole draw.

    Attributes
    ----------
    changed, n : int
        Calls that went elsewhere, of those replayed.
    priors : tuple of BetaBinomial or EwensMixture
        What stops the policy's draws.
    """

    changed: int
    n: int
    priors: tuple[Prior, ...]

    @property
    def allowed(self) -> float:
        """The share of calls that the priors allow to change: the sum of their `eps`."""
        return min(1.0, sum(prior.eps for prior in self.priors))

    @property
    def p_value(self) -> float:
        """Probability of as many changes or more where the priors hold; by an exact binomial test."""
        if not 0 < self.allowed < 1:
            return float(self.changed <= self.allowed * self.n)
        return 1.0 - binomial_cdf(self.changed - 1, self.n, self.allowed)

    @property
    def warning(self) -> str | None:
        """What to do where the priors do not hold on these calls; None where nothing speaks against them."""
        if self.p_value >= _FALSE_ALARM:
            return None
        fitted_to = " and ".join(dict.fromkeys(prior.source for prior in self.priors))
        return (
            f"draws that stopped early changed the route of {self.changed} of {self.n} calls ({self.changed / self.n:.0%}), where the "
            f"prior allows {self.allowed:g}: it was fitted to other data ({fitted_to}); fit it to these calls, or draw all samples"
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "changed": self.changed,
            "n": self.n,
            "allowed": self.allowed,
            "priors": [prior.source for prior in self.priors],
            "warning": self.warning,
        }


def early_stops(
    policy: Policy,
    rows: Sequence[Row],
    replayed: Sequence[ReplayedCall],
    *,
    rates: Rates | None = None,
    progress: Progress | None = None,
) -> EarlyStops | None:
    """Replay the rows once more with every draw made whole; None where no prior stops this policy's draws.

    Parameters
    ----------
    policy : Policy
    rows : sequence of Row
    replayed : sequence of ReplayedCall
        What the policy itself did on them.
    rates, progress
        As of `replay`.

    Notes
    -----
    A prior keeps its `eps` on calls like those that it was fitted to, and on no others.
    """
    priors = tuple(part for part in parts_of(policy) if isinstance(part, (BetaBinomial, EwensMixture)))
    if not priors:
        return None
    whole = replay(_drawing_all(policy), rows, rates=rates, progress=progress)
    changed = sum(one.route != other.route for one, other in zip(replayed, whole, strict=True))
    return EarlyStops(changed=changed, n=len(rows), priors=priors)


def _drawing_all(policy: Any) -> Any:
    changes: dict[str, Any] = {name: _drawing_all(inner) for name, inner in inner_of(policy).items()}
    if isinstance(policy, Cascade):
        changes["gates"] = tuple(replace(gate, signal=_whole(gate.signal)) for gate in policy.gates)
    return replace(policy, **changes) if changes else policy


def _whole(signal: Signal) -> Signal:
    if isinstance(signal, Combined):
        members = tuple(replace(member, signal=_whole(member.signal)) for member in signal.members)
        return replace(signal, members=members)
    if isinstance(signal, (SelfConsistency, SemanticEntropy)):
        return replace(signal, stop=None)
    return signal
