"""Labels from semantic entropy, as in the confidence-driven router (Zhang et al., arXiv 2502.11021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from confroute.asks import AskGenerator
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.judge.verdicts import Winner
from confroute.signals.base import compared_text, given_answers
from confroute.signals.clusters import Clusters
from confroute.signals.equivalence import Equivalence
from confroute.types import Generation, checked_logprobs

Estimator: TypeAlias = Literal["paper", "normalised", "discrete"]
ESTIMATORS: tuple[Estimator, ...] = ("paper", "normalised", "discrete")
# A smaller entropy is a rounding error of a single meaning.
ZERO_NATS = 1e-9


def label_entropy(
    answers: Sequence[Generation],
    *,
    question: str,
    equivalence: Equivalence,
    estimator: Estimator = "paper",
) -> AskGenerator[float]:
    """Compute the semantic entropy of one model's answers, in nats, at least 0.

    Parameters
    ----------
    answers : sequence of Generation
        2 or more samples of one prompt.
    question : str
    equivalence : Equivalence
        Decides which answers mean the same; its asks are yielded to the caller.
    estimator : {"paper", "normalised", "discrete"}
        See `entropy_of`.

    Raises
    ------
    PolicyError
        Fewer than 2 answers, or no answer has log-probabilities and the estimator needs them.
    SignalUnavailableError
        Only some answers have none, which says nothing about the model's other prompts.
    BadLogprobsError
        The log-probabilities are invalid.
    """
    if len(answers) < 2:
        msg = f"{len(answers)} answers: semantic entropy needs at least 2; draw more samples"
        raise PolicyError(msg)
    clusters = Clusters(question=question, equivalence=equivalence, given=given_answers(answers))
    yield from clusters.extend([compared_text(answer) for answer in answers])
    return entropy_of(answers, clusters.labels, estimator=estimator)


def entropy_of(answers: Sequence[Generation], meanings: Sequence[int], *, estimator: Estimator) -> float:
    """Compute the entropy over meanings, in nats.

    Parameters
    ----------
    answers : sequence of Generation
    meanings : sequence of int
        The meaning of each answer, numbered from 0.
    estimator : {"paper", "normalised", "discrete"}
        "paper": ``SE(x) = -(1/|C|) sum_i log p(C_i|x)``, where p(C|x) is the sum of the probabilities of the sequences in C
        (equations 1 and 2 of the paper; the estimator of Kuhn et al., arXiv 2302.09664). Unlike there, a sequence that
        was drawn twice counts once, so that p(C|x) is a probability and the entropy at least 0; it is 0 only if the drawn
        sequences have all the probability, and it grows with the length of the answers.
        "normalised": the same mean, with p(C|x) from length-normalised sequence probabilities, scaled to sum to 1: exactly
        0 for a single meaning, whatever its length.
        "discrete": -sum_i p_i log p_i of the shares of answers; needs no log-probabilities.

    Examples
    --------
    >>> sure, unsure = Generation(text="a", logprobs=(-0.1,)), Generation(text="b", logprobs=(-2.0,))
    >>> round(entropy_of([sure, sure, unsure], [0, 0, 1], estimator="paper"), 3)
    1.05
    >>> entropy_of([sure, sure], [0, 0], estimator="normalised")
    0.0
    """
    if estimator not in ESTIMATORS:
        msg = f"estimator is {estimator!r}: expected one of {', '.join(ESTIMATORS)}"
        raise PolicyError(msg)
    if estimator == "discrete":
        shares = np.bincount(meanings) / len(meanings)
        return max(0.0, float(-(shares * np.log(shares)).sum())) if len(shares) > 1 else 0.0
    logs = _log_probabilities(answers, meanings, normalised=estimator == "normalised")
    return max(0.0, -math.fsum(logs) / len(logs))


def _log_probabilities(
    answers: Sequence[Generation], meanings: Sequence[int], *, normalised: bool
) -> list[float]:
    """Log-probability of each meaning: log-sum-exp over its distinct sequences."""
    members: dict[int, dict[str, float]] = {}
    for answer, meaning in zip(answers, meanings, strict=True):
        logprobs = checked_logprobs(answer.logprobs)
        if logprobs is None and any(other.logprobs for other in answers):
            msg = "one of the answers has no log-probabilities (it may be empty) and cannot be weighted"
            raise SignalUnavailableError(msg)
        if logprobs is None:
            msg = "the answers have no log-probabilities: request them, or use the estimator 'discrete'"
            raise PolicyError(msg)
        score = math.fsum(logprobs) / (len(logprobs) if normalised else 1)
        scores = members.setdefault(meaning, {})
        # A text may be tokenised in two ways: it gets the probability of the likelier one.
        scores[answer.text] = max(score, scores.get(answer.text, -math.inf))
    logs = [float(np.logaddexp.reduce([*scores.values()])) for scores in members.values()]
    if not normalised:
        return [min(0.0, value) for value in logs]
    total = float(np.logaddexp.reduce(logs))
    return [value - total for value in logs]


def relative_difference(edge: float, cloud: float) -> float:
    """Compute ``|SE_cloud - SE_edge| / SE_cloud``, in [0, inf] (equation 3 of the paper), also for SE_cloud = 0.

    An entropy below 1e-9 nats counts as 0. If both are 0, both models are certain and the difference is 0, a tie. If only
    the cloud's is 0, the difference is infinite: no finite threshold makes that a tie, and the cloud wins.

    Examples
    --------
    >>> relative_difference(1.5, 1.0), relative_difference(0.0, 0.0), relative_difference(0.2, 0.0)
    (0.5, 0.0, inf)
    """
    edge, cloud = (0.0 if value < ZERO_NATS else value for value in (edge, cloud))
    if cloud == 0:
        return 0.0 if edge == 0 else math.inf
    return abs(cloud - edge) / cloud


def entropy_winner(edge: float, cloud: float, *, tau: float) -> Winner:
    """Return the model with the lower entropy if the relative difference exceeds `tau`, else a tie; "a" is the edge.

    Parameters
    ----------
    edge, cloud : float
        Entropies, at least 0.
    tau : float
        At least 0. From 1 on the edge can never win: its entropy would have to be below 0.

    Examples
    --------
    >>> (
    ...     entropy_winner(0.2, 1.0, tau=0.1),
    ...     entropy_winner(1.05, 1.0, tau=0.1),
    ...     entropy_winner(0.3, 0.0, tau=0.1),
    ... )
    ('a', 'tie', 'b')
    """
    if not tau >= 0:
        msg = f"tau is {tau}: expected a relative difference of at least 0"
        raise PolicyError(msg)
    if relative_difference(edge, cloud) <= tau:
        return "tie"
    return "a" if edge < cloud else "b"
