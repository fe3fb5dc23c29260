"""CoCoA: negative log-probability of the draft times its dissimilarity to the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.registry import register
from confroute.signals.base import Case, Range, compared_text, draw_samples, given_answers
from confroute.signals.graph import SampleGraph
from confroute.signals.logprob import token_nll
from confroute.signals.similarity import pairwise_similarities
from confroute.signals.tokens import check_one_of, draft_tokens


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
        Statistic over the draft's tokens.

    Notes
    -----
    Vashurin et al. (arXiv 2502.04964), with `similarity` in place of their cross-encoder. Needs log-probabilities
    and samples. Compares at most n pairs, not n (n - 1)/2. It is 0 where all samples say what the draft says,
    however unlikely the draft's tokens.
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

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Draw all samples and compare each distinct one with the draft.

        Raises
        ------
        SignalUnavailableError
            No log-probabilities, or the tier cannot sample.
        """
        nll = token_nll(draft_tokens(case).counted)[self.statistic]
        drawn = yield from draw_samples(case, self.n, temperature=self.temperature)
        answers = [case.draft, *drawn]
        similarities = yield from pairwise_similarities(
            case.question,
            [compared_text(answer) for answer in answers],
            self.similarity,
            first=True,
            given=given_answers(answers),
        )
        dissimilarity = float(1.0 - similarities.matrix[0, 1:].mean())
        return Measurement(
            signal=self.name,
            uncertainty=nll * max(0.0, dissimilarity),
            details={
                "drawn": len(drawn),
                "of": self.n,
                "pairs": similarities.pairs,
                "dissimilarity": round(dissimilarity, 6),
                "nats": round(nll, 6),
            },
        )
