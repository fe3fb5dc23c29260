"""CoCoA: the draft's own doubt times how unlike it the samples are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from confroute.decision import Measurement
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range, samples
from confroute.signals.graph import SampleGraph
from confroute.signals.logprob import token_nll
from confroute.signals.similarity import alike
from confroute.signals.tokens import check_one_of, logprobs_of


@register(
    kind="signal",
    needs="samples, a similarity, log-probabilities",
    columns={"cocoa": {}},
    per_samples=("n",),
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Cocoa(SampleGraph):
    """Negative log-probability of the draft times its mean dissimilarity to the samples, in nats; 0 or more.

    Parameters
    ----------
    statistic : {"mean", "sum"}
        Of the draft's tokens.

    Notes
    -----
    Vashurin et al. (arXiv 2502.04964), with `similarity` in place of their cross-encoder. Needs log-probabilities
    and samples; compares n pairs at the most, not n (n - 1)/2. It is 0 where all samples say what the draft says,
    however unlikely its words.
    """

    statistic: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        SampleGraph.__post_init__(self)
        check_one_of("statistic", self.statistic, ("mean", "sum"))

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "cocoa"

    @property
    def range(self) -> Range:
        """0 or more."""
        return Range(unit="nats")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Draw all samples, compare each distinct one with the draft.

        Raises
        ------
        SignalUnavailableError
            No log-probabilities, or the tier cannot sample.
        """
        doubt = token_nll(logprobs_of(case))[self.statistic]
        drawn = yield from samples(case, self.n, temperature=self.temperature)
        texts = [answer.answer or answer.text for answer in (case.draft, *drawn)]
        found = yield from alike(case.question, texts, self.similarity, first=True)
        apart = float(1.0 - found.matrix[0, 1:].mean())
        return Measurement(
            signal=self.name,
            uncertainty=doubt * max(0.0, apart),
            details={
                "drawn": len(drawn),
                "of": self.n,
                "pairs": found.pairs,
                "dissimilarity": round(apart, 6),
                "nats": round(doubt, 6),
            },
        )
