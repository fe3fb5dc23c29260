"""Quality of the retrieval: the scores of the passages that an answer should rest on. No extra cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Case, Range
from confroute.types import JSON


@register(
    kind="signal",
    needs="retrieved passages with their scores",
    columns={"retrieval_score": {}},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalScore:
    """1 - cosine similarity of the retrieved passages; in [0, 2], higher means a worse match.

    Parameters
    ----------
    statistic : {"best", "mean", "gap"}
        "best" is the similarity of the closest passage, "mean" the mean over all passages, "gap" the difference between
        the best and the second: where several passages are equally close, any one of them may hold the answer.

    Raises
    ------
    PolicyError
        An unknown statistic.

    Notes
    -----
    Measures how well the passages fit the question, not how well the answer fits the passages; for that see
    `ContextSupport`. Poor passages are a reason to distrust an answer, but not to expect a better one from a larger model
    that reads the same passages: fit the threshold with the answers of both. Scores outside [-1, 1], such as those of
    BM25 or of a reranker, have another scale and are refused.

    Examples
    --------
    >>> from confroute.types import Context, Generation, Tier
    >>> case = Case(
    ...     tier=Tier(name="edge", model="m"),
    ...     question="?",
    ...     draft=Generation(text="4"),
    ...     context=Context(passages=("a", "b"), scores=(0.75, 0.25)),
    ... )
    >>> next(RetrievalScore().measure(case))
    Traceback (most recent call last):
    StopIteration: Measurement(signal='retrieval_score', uncertainty=0.25, ...
    """

    statistic: Literal["best", "mean", "gap"] = "best"

    def __post_init__(self) -> None:
        if self.statistic not in ("best", "mean", "gap"):
            msg = f"statistic is {self.statistic!r}: expected 'best', 'mean' or 'gap'"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "retrieval_score"

    @property
    def range(self) -> Range:
        """0 to 2: one minus a cosine."""
        return Range(high=2.0, unit="cosine distance")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return the statistic of the scores.

        Raises
        ------
        SignalUnavailableError
            Nothing was retrieved, the retriever gave no scores, or the scores are not cosines.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        scores = sorted(cosines(case), reverse=True)
        mean = math.fsum(scores) / len(scores)
        gap = scores[0] - (scores[1] if len(scores) > 1 else 0.0)
        statistics = {"best": scores[0], "mean": mean, "gap": gap}
        details: dict[str, JSON] = {name: round(value, 6) for name, value in statistics.items()}
        details |= {"statistic": self.statistic, "passages": len(scores)}
        # The gap of two cosines can exceed 1, and so can a rounded cosine.
        value = min(2.0, max(0.0, 1 - statistics[self.statistic]))
        return Measurement(signal=self.name, uncertainty=value, details=details)


def cosines(case: Case) -> tuple[float, ...]:
    """The retrieval scores of a case: one or more, each in [-1, 1].

    Raises
    ------
    SignalUnavailableError
        There are none, or they are not cosines.
    """
    scores = case.context.scores if case.context is not None else None
    if not scores:
        msg = "the retriever gave no scores" if case.context is not None else "nothing was retrieved"
        raise SignalUnavailableError(msg)
    # Vector stores round: the cosine of a text with itself may be slightly above 1.
    wrong = [score for score in scores if not (math.isfinite(score) and -1.001 <= score <= 1.001)]
    if wrong:
        msg = f"a retrieval score is {wrong[0]:g}: expected cosine similarities in [-1, 1]"
        raise SignalUnavailableError(msg)
    return scores
