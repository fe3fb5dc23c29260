"""Ensemble: how far several edge models, quantisations, prompts or checkpoints disagree about a draft."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from confroute.asks import AskGenerator, Draft, Evidence, Gather, Sample, Score
from confroute.decision import Measurement
from confroute.errors import MissingExtraError, ModelError, PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import Kind, answer_of
from confroute.signals.base import Case, Range
from confroute.types import JSON, Generation

Statistic: TypeAlias = Literal["disagreement", "predictive_entropy", "mutual_information", "score_variance"]
STATISTICS: tuple[Statistic, ...] = (
    "disagreement",
    "predictive_entropy",
    "mutual_information",
    "score_variance",
)
# Mistakes in the set-up are raised, not counted as a failed member.
_SETUP_ERRORS = (MissingExtraError, ModelError, PolicyError)
_MIN_SCORES = 2


def spread(votes: Sequence[Sequence[str | None]]) -> tuple[float, float, float]:
    """Predictive entropy, expected entropy and mutual information of several members' answers, in nats.

    Parameters
    ----------
    votes : sequence of sequences of str or None
        The answers of each member, one or more each; None, for no recognisable answer, counts as an answer of its own.

    Returns
    -------
    tuple of float
        H(mean of p), mean of H(p), and their difference, 0 or more, where p is a member's distribution over answers.
        With one answer per member the second is 0: it takes further answers to tell a member's own doubt from
        disagreement between members.

    Examples
    --------
    >>> predictive, expected, information = spread([["4", "4"], ["5", "5"]])
    >>> round(predictive, 3), expected, round(information, 3)
    (0.693, 0.0, 0.693)
    >>> spread([["4", "5"], ["5", "4"]])[2]
    0.0
    """
    shares = [
        {answer: count / len(answers) for answer, count in Counter(answers).items()} for answers in votes
    ]
    mean: Counter[str | None] = Counter()
    for member in shares:
        for answer, share in member.items():
            mean[answer] += share / len(shares)  # type: ignore[assignment]  # a Counter counts in floats as well
    predictive = _entropy(mean.values())
    expected = math.fsum(_entropy(member.values()) for member in shares) / len(shares)
    return predictive, expected, max(0.0, predictive - expected)


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
    """Disagreement of several models about the draft; 0 or more, higher means less reliable.

    Parameters
    ----------
    members : tuple of str
        The members' names in the router (`members={name: model}` in either host): further edge models,
        quantisations, checkpoints, adapters, or the same model behind another prompt. The draft's own tier is always a
        member and not listed.
    statistic : {"disagreement", "predictive_entropy", "mutual_information", "score_variance"}
        The share of members whose answer differs from the draft's, in [0, 1]; the entropy of the members' mean
        distribution over answers; the part of it that is disagreement between members (nats, at most log members); or
        the variance, over members whose weights are in this process, of their mean log-probability per token of the
        draft (nats squared).
    samples : int
        Answers per member, at `temperature`; 1 takes its answer at its own settings. Two or more are needed to tell
        disagreement from each member's own doubt.
    temperature : float
        Above 0; used where `samples` is 2 or more.
    kind : {"auto", "number", "option", "text"}
        What to compare; see `confroute.signals.answers.final_answer`.

    Raises
    ------
    PolicyError
        No member, a duplicate member, an unknown statistic, or settings that measure nothing.

    Notes
    -----
    All members are asked at the same time. A member that fails is left out: the details name it, with the class of its
    error, and state how many members answered (`heard`). Deep ensembles: Lakshminarayanan et al. (arXiv 1612.01474); the
    decomposition of the entropy: Houlsby et al. (arXiv 1112.5745), on distributions over final answers instead of classes.
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
            msg = f"samples is {self.samples} and temperature {self.temperature}: expected at least 1 sample and a temperature above 0"
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

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Ask all members at once.

        Raises
        ------
        SignalUnavailableError
            No member answered, or the draft has nothing to compare or score.
        """
        if self.statistic == "score_variance":
            return (yield from self._scored(case))
        answer = answer_of(case.draft, case.question, kind=self.kind)
        if answer is None:
            raise SignalUnavailableError("the draft holds no short answer to compare members with")
        generations, details = yield from self._answers(case)
        votes = [[answer_of(one, case.question, kind=self.kind) for one in member] for member in generations]
        disagreement = sum(sum(one != answer for one in vote) / len(vote) for vote in votes) / len(votes)
        predictive, expected, information = spread([[answer], *votes])
        values = {
            "disagreement": disagreement,
            "predictive_entropy": predictive,
            "mutual_information": information,
        }
        details |= {
            "disagreement": round(disagreement, 6),
            "predictive_entropy_nats": round(predictive, 6),
            "expected_entropy_nats": round(expected, 6),
            "mutual_information_nats": round(information, 6),
            "distinct": len({one for vote in votes for one in vote} | {answer}),
        }
        # A rounding error may lift an entropy above its bound.
        value = min(values[self.statistic], self.range.high)
        return Measurement(signal=self.name, uncertainty=value, details=details)

    def _answers(self, case: Case) -> AskGenerator[tuple[list[tuple[Generation, ...]], dict[str, JSON]]]:
        asks = [
            Draft(tier=name)
            if self.samples == 1
            else Sample(tier=name, n=self.samples, temperature=self.temperature)
            for name in self.members
        ]
        evidence = yield Gather(asks=tuple(asks))
        parts, details = self._usable(self.members, evidence)
        return [part.generations for part in parts], details

    def _usable(self, names: Sequence[str], evidence: Evidence) -> tuple[list[Evidence], dict[str, JSON]]:
        """The evidence of the members that answered, and details that name those that did not."""
        failed: dict[str, JSON] = {}
        parts: list[Evidence] = []
        for name, part in zip(names, evidence.parts, strict=True):
            if isinstance(part, _SETUP_ERRORS):
                raise part
            if isinstance(part, Evidence) and (part.generations or part.passes is not None):
                parts.append(part)
            else:
                failed[name] = type(part).__name__ if isinstance(part, Exception) else "no answer"
        if not parts:
            raise SignalUnavailableError(f"no member of the ensemble answered ({', '.join(failed)})")
        details: dict[str, JSON] = {"members": len(names), "heard": len(parts)}
        return parts, {**details, **({"failed": failed} if failed else {})}

    def _scored(self, case: Case) -> AskGenerator[Measurement]:
        text = case.draft.text
        if not text.strip():
            raise SignalUnavailableError("the draft has no text for members to score")
        # At rate 0 both passes are the model's own likelihood, which is computed once.
        tiers = (case.tier.name, *self.members)
        evidence = yield Gather(
            asks=tuple(Score(tier=name, answer=text, passes=2, rate=0.0) for name in tiers)
        )
        parts, details = self._usable(tiers, evidence)
        means = [float(part.passes.logprobs[0].mean()) for part in parts if part.passes is not None]
        if len(means) < _MIN_SCORES:
            msg = f"{len(means)} members scored the draft: expected at least {_MIN_SCORES} for a variance"
            raise SignalUnavailableError(msg)
        details |= {"scores_nats": [round(mean, 6) for mean in means]}
        return Measurement(signal=self.name, uncertainty=float(np.var(means, ddof=1)), details=details)
