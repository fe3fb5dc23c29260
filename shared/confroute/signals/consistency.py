"""Self-consistency: how many samples of the same model disagree with its draft."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.asks import AskGenerator
from confroute.decision import Measurement, without_noise
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import Kind, answer_of
from confroute.signals.base import Case, Range, draw_samples
from confroute.signals.stopping import BetaBinomial


def check_sampling(n: int, temperature: float, step: int, *, least: int = 2) -> None:
    """Raise PolicyError for sampling settings that cannot measure anything.

    Raises
    ------
    PolicyError
        Fewer than `least` samples, a temperature that is not positive, or a step outside [1, n].
    """
    if n < least:
        msg = f"n is {n}: expected at least {least} sample{'s' * (least > 1)}"
        raise PolicyError(msg)
    if not temperature > 0:
        msg = f"temperature is {temperature}: expected a number above 0, since all samples are the same at 0"
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
        The largest number of samples, 1 or more. With 1, a second answer that differs sends the call on: the cheapest check.
    temperature : float
        Above 0.
    step : int
        Samples drawn at a time. 1 draws the fewest in total; a local model draws several for little more than one.
    kind : {"auto", "number", "option", "text"}
        What to compare; see `confroute.signals.answers.final_answer`.
    stop : BetaBinomial, optional
        Stop, too, once the decision would change with a probability of at most its `eps`.

    Notes
    -----
    After Wang et al. (arXiv 2203.11171), who take the majority. Here the draft may be returned, so what counts is
    disagreement with it. Sampling stops as soon as no further sample can change the decision: with k of n
    drawn and d disagreeing, the final share lies in [d/n, (d + n - k)/n]. The value is the share so far, clipped to that
    interval.

    A sample without a recognisable answer counts as disagreeing: it does not support the draft.
    """

    n: int = 5
    temperature: float = 0.7
    step: int = 1
    kind: Kind = "auto"
    stop: BetaBinomial | None = None

    def __post_init__(self) -> None:
        check_sampling(self.n, self.temperature, self.step, least=1)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "self_consistency"

    @property
    def range(self) -> Range:
        """A share of samples."""
        return Range(high=1.0, unit="share")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Draw samples until none can change the decision.

        Raises
        ------
        SignalUnavailableError
            The draft has no short answer to compare, or the tier cannot sample.
        """
        answer = answer_of(case.draft, case.question, kind=self.kind)
        if answer is None:
            raise SignalUnavailableError("the draft holds no short answer to compare samples with")
        drawn = 0
        low, high = 0.0, 1.0
        answers: list[str | None] = []
        while drawn < self.n and not (drawn and case.settled(low, high)):
            drawn = min(self.n, drawn + self.step)
            generations = yield from draw_samples(case, drawn, temperature=self.temperature)
            answers = [answer_of(sample, case.question, kind=self.kind) for sample in generations]
            disagreeing = sum(other != answer for other in answers)
            low = without_noise(disagreeing / self.n)
            high = without_noise((disagreeing + self.n - drawn) / self.n)
            probable = self.stop and self.stop.probable_range(disagreeing, drawn, self.n, case.settled)
            if probable:
                low, high = probable
                break
        share = sum(other != answer for other in answers) / drawn
        return Measurement(
            signal=self.name,
            uncertainty=min(max(share, low), high),
            details={
                "drawn": drawn,
                "of": self.n,
                "low": low,
                "high": high,
                "distinct": len(set(answers)),
                **({} if self.stop is None else {"prior": self.stop.source}),
            },
        )
