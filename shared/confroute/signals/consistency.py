"""Self-consistency: how many of the model's own further answers disagree with its draft."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import Kind, answer_of
from confroute.signals.base import Asking, Case, Range, samples
from confroute.signals.stopping import BetaBinomial


def check_sampling(n: int, temperature: float, step: int) -> None:
    """Refuse sampling settings that cannot measure anything.

    Raises
    ------
    PolicyError
        Fewer than 2 samples, a temperature that is not positive, or a step outside [1, n].
    """
    if n < 2:
        msg = f"n is {n}: expected at least 2 samples"
        raise PolicyError(msg)
    if not temperature > 0:
        msg = f"temperature is {temperature}: expected a number above 0, or all samples are the same"
        raise PolicyError(msg)
    if not 1 <= step <= n:
        msg = f"step is {step}: expected 1 to n = {n} samples at a time"
        raise PolicyError(msg)


@register(
    kind="signal", needs="samples, short answers", columns={"self_consistency": {}}, per_samples=("n", "step")
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfConsistency:
    """Share of samples whose final answer is not the draft's; in [0, 1], higher means less reliable.

    Parameters
    ----------
    n : int
        Samples at the most, 2 or more.
    temperature : float
        Above 0.
    step : int
        Samples drawn at a time. 1 spends the fewest; a local model draws several for hardly more than one.
    kind : {"auto", "number", "option", "text"}
        What to compare; see `confroute.signals.answers.final_answer`.
    stop : BetaBinomial, optional
        Stop as well where the decision would change with a probability of at most its `eps` only.

    Notes
    -----
    After Wang et al. (arXiv 2203.11171), who take the majority; here the draft is what may be returned, so what
    counts is disagreement with it. Sampling stops as soon as no further sample can change the decision: with k of n
    drawn and d disagreeing, the share ends in [d/n, (d + n - k)/n]. The value is then the end of that interval
    which is nearest to the share seen so far.

    A sample without a recognisable answer counts as disagreeing: it is no support.
    """

    n: int = 5
    temperature: float = 0.7
    step: int = 1
    kind: Kind = "auto"
    stop: BetaBinomial | None = None

    def __post_init__(self) -> None:
        check_sampling(self.n, self.temperature, self.step)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "self_consistency"

    @property
    def range(self) -> Range:
        """A share of samples."""
        return Range(high=1.0, unit="share")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Draw samples until the decision is settled.

        Raises
        ------
        SignalUnavailableError
            The draft has no short answer to compare, or the tier cannot sample.
        """
        answer = answer_of(case.draft, case.question, kind=self.kind)
        if answer is None:
            raise SignalUnavailableError(
                "the draft holds no short answer that samples could be compared with"
            )
        drawn = 0
        low, high = 0.0, 1.0
        found: list[str | None] = []
        while drawn < self.n and not (drawn and case.settled(low, high)):
            drawn = min(self.n, drawn + self.step)
            texts = yield from samples(case, drawn, temperature=self.temperature)
            found = [answer_of(s, case.question, kind=self.kind) for s in texts]
            apart = sum(other != answer for other in found)
            low, high = apart / self.n, (apart + self.n - drawn) / self.n
            probable = self.stop and self.stop.range_of(apart, drawn, self.n, case.settled)
            if probable:
                low, high = probable
                break
        seen = sum(other != answer for other in found) / drawn
        return Measurement(
            signal=self.name,
            uncertainty=min(max(seen, low), high),
            details={"drawn": drawn, "of": self.n, "low": low, "high": high, "distinct": len(set(found))},
        )
