"""Ensemble variance: how far several edge models, quantisations, prompts or checkpoints are from one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from confroute.asks import Draft, Evidence, Gather, Sample, Score
from confroute.decision import Measurement
from confroute.errors import MissingExtraError, ModelError, PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import Kind, answer_of
from confroute.signals.base import Asking, Case, Range
from confroute.types import JSON, Generation

Statistic: TypeAlias = Literal["disagreement", "predictive_entropy", "mutual_information", "score_variance"]
STATISTICS: tuple[Statistic, ...] = (
    "disagreement",
    "predictive_entropy",
    "mutual_information",
    "score_variance",
)
_SET_UP = (MissingExtraError, ModelError, PolicyError)
_LEAST = 2


def spread(votes: Sequence[Sequence[str | None]]) -> tuple[float, float, float]:
    """Predictive entropy, expected entropy and mutual information of several members' answers, in nats.

    Parameters
    ----------
    votes : sequence of sequences of str or None
        The answers of each member, one or more each; None, no recognisable answer, is an answer of its own.

    Returns
    -------
    tuple of float
        H(mean of p), mean of H(p), and their difference, 0 or more, where p is a member's share of each answer.
        With one answer a member the second is 0: only further answers tell a member's own doubt from disagreement.

    Examples
    --------
    >>> together, own, apart = spread([["4", "4"], ["5", "5"]])
    >>> round(together, 3), own, round(apart, 3)
    (0.693, 0.0, 0.693)
    >>> spread([["4", "5"], ["5", "4"]])[2]
    0.0
    """
    shares = [{answer: count / len(one) for answer, count in Counter(one).items()} for one in votes]
    mean: Counter[str | None] = Counter()
    for member in shares:
        for answer, share in member.items():
            mean[answer] += share / len(shares)  # type: ignore[assignment]  # a Counter counts in floats as well
    together = _entropy(mean.values())
    own = math.fsum(_entropy(member.values()) for member in shares) / len(shares)
    return together, own, max(0.0, together - own)


def _entropy(shares: Iterable[float]) -> float:
    return max(0.0, -math.fsum(p * math.log(p) for p in shares if p > 0))


@register(
    kind="signal",
    needs="further models",
    recorded="`--member NAME=MODEL` as `ensemble.STATISTIC`",
    example={"members": ("q8",)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Doubt of several models about the draft; 0 or more, higher means less reliable.

    Parameters
    ----------
    members : tuple of str
        Names that the router knows its members by (`members={name: model}` of either host): further edge models,
        quantisations, checkpoints, adapters, or the same model behind another prompt. The draft's own tier is a member
        without being named.
    statistic : {"disagreement", "predictive_entropy", "mutual_information", "score_variance"}
        Share of the members whose answer is not the draft's, in [0, 1]; entropy of the members' mean distribution of
        answers; what of it is disagreement between members (nats, at most log members); or the variance of the members'
        mean log-probability a token of the draft (nats squared), for members whose weights are in this process.
    samples : int
        Answers of each member, at `temperature`; 1 is its answer at its own settings. Two or more are needed to tell
        disagreement from each member's own doubt.
    temperature : float
        Above 0; of the samples, where there are several.
    kind : {"auto", "number", "option", "text"}
        What to compare; see `confroute.signals.answers.final_answer`.

    Raises
    ------
    PolicyError
        No member, one twice, an unknown statistic, or settings that measure nothing.

    Notes
    -----
    All members are asked at the same time. One that fails reduces the ensemble: the details name it, with the kind of its
    error, and say how many were heard. Deep ensembles: Lakshminarayanan et al. (arXiv 1612.01474); the split of the entropy:
    Houlsby et al. (arXiv 1112.5745), on distributions over final answers instead of classes.
    """

    members: tuple[str, ...]
    statistic: Statistic = "disagreement"
    samples: int = 1
    temperature: float = 1.0
    kind: Kind = "auto"

    def __post_init__(self) -> None:
        if (
            not isinstance(self.members, tuple)
            or not self.members
            or len(set(self.members)) < len(self.members)
        ):
            msg = f"members are {self.members!r}: expected a tuple of one or more different names"
            raise PolicyError(msg)
        if self.statistic not in STATISTICS:
            msg = f"statistic is {self.statistic!r}: expected one of {', '.join(STATISTICS)}"
            raise PolicyError(msg)
        if self.samples < 1 or not self.temperature > 0:
            msg = f"samples is {self.samples}, temperature {self.temperature}: expected at least 1, and a number above 0"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "ensemble"

    @property
    def range(self) -> Range:
        """A share, nats or nats squared."""
        if self.statistic == "disagreement":
            return Range(high=1.0, unit="share")
        if self.statistic == "score_variance":
            return Range(unit="nats^2")
        voters = len(self.members) + 1
        bound = voters if self.statistic == "mutual_information" else voters * self.samples
        return Range(high=math.log(bound), unit="nats")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Ask all members at once.

        Raises
        ------
        SignalUnavailableError
            No member could be heard, or the draft has nothing that could be compared or scored.
        """
        if self.statistic == "score_variance":
            return (yield from self._scored(case))
        answer = answer_of(case.draft, case.question, kind=self.kind)
        if answer is None:
            raise SignalUnavailableError(
                "the draft holds no short answer that members could be compared with"
            )
        heard, details = yield from self._heard(case)
        votes = [[answer_of(one, case.question, kind=self.kind) for one in said] for said in heard]
        apart = sum(sum(one != answer for one in vote) / len(vote) for vote in votes) / len(votes)
        together, own, information = spread([[answer], *votes])
        values = {"disagreement": apart, "predictive_entropy": together, "mutual_information": information}
        details |= {
            "disagreement": round(apart, 6),
            "predictive_entropy_nats": round(together, 6),
            "expected_entropy_nats": round(own, 6),
            "mutual_information_nats": round(information, 6),
            "distinct": len({one for vote in votes for one in vote} | {answer}),
        }
        # Rounding may lift an entropy above its bound.
        value = min(values[self.statistic], self.range.high)
        return Measurement(signal=self.name, uncertainty=value, details=details)

    def _heard(self, case: Case) -> Asking[tuple[list[tuple[Generation, ...]], dict[str, JSON]]]:
        asks = [
            Draft(tier=name)
            if self.samples == 1
            else Sample(tier=name, n=self.samples, temperature=self.temperature)
            for name in self.members
        ]
        evidence = yield Gather(asks=tuple(asks))
        parts, details = self._parts(self.members, evidence)
        return [part.generations for part in parts], details

    def _parts(self, names: Sequence[str], evidence: Evidence) -> tuple[list[Evidence], dict[str, JSON]]:
        """What those of these names brought that brought something, and the details that say which did not."""
        failed: dict[str, JSON] = {}
        parts: list[Evidence] = []
        for name, part in zip(names, evidence.parts, strict=True):
            if isinstance(part, _SET_UP):
                raise part
            if isinstance(part, Evidence) and (part.generations or part.passes is not None):
                parts.append(part)
            else:
                failed[name] = type(part).__name__ if isinstance(part, Exception) else "no answer"
        if not parts:
            raise SignalUnavailableError(f"no member of the ensemble could be heard ({', '.join(failed)})")
        details: dict[str, JSON] = {"members": len(names), "heard": len(parts)}
        return parts, {**details, **({"failed": failed} if failed else {})}

    def _scored(self, case: Case) -> Asking[Measurement]:
        text = case.draft.text
        if not text.strip():
            raise SignalUnavailableError("the draft has no text that members could score")
        # At rate 0 both passes are the model's own likelihood, computed once.
        tiers = (case.tier.name, *self.members)
        evidence = yield Gather(
            asks=tuple(Score(tier=name, answer=text, passes=2, rate=0.0) for name in tiers)
        )
        parts, details = self._parts(tiers, evidence)
        means = [float(part.passes.logprobs[0].mean()) for part in parts if part.passes is not None]
        if len(means) < _LEAST:
            raise SignalUnavailableError(f"{len(means)} member scored the draft: one alone has no variance")
        details |= {"scores_nats": [round(mean, 6) for mean in means]}
        return Measurement(signal=self.name, uncertainty=float(np.var(means, ddof=1)), details=details)
