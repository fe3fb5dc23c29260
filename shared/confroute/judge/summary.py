"""Summarises many comparisons: win rate, consistency, length bias and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from confroute.judge.judging import judge_usage
from confroute.judge.rates import prediction_powered
from confroute.judge.verdicts import Comparison, Winner
from confroute.prices import Price
from confroute.stats.metrics import bootstrap_ci
from confroute.types import JSON

_WORTH: dict[Winner, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


def summarise(
    comparisons: Sequence[Comparison],
    *,
    gold: Mapping[str, Winner] | None = None,
    prices: Mapping[str, Price] | None = None,
    resamples: int = 2000,
) -> dict[str, JSON]:
    """Summarise as JSON the win rate of a over b, the judges' consistency and dissent, answer lengths and cost.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Errors are counted and left out of every rate.
    gold : mapping of str to Winner, optional
        Human verdicts on some pairs by id, which correct the rate (`prediction_powered`).
    prices : mapping of str to Price, optional
        Price of each judge.
    resamples : int
        Number of bootstrap resamples over pairs, for the 95 % interval.
    """
    decided = [comparison for comparison in comparisons if comparison.winner is not None]
    worth = np.array([_WORTH[one.winner] for one in decided if one.winner is not None])
    interval = bootstrap_ci(lambda values: float(values.mean()), worth, n=resamples) if decided else None
    votes = [vote for one in decided for vote in one.votes if vote.consistent is not None]
    effort = judge_usage(comparisons)
    counts = Counter(one.winner for one in decided)
    usage: dict[str, JSON] = {judge: tokens.to_dict() for judge, tokens in effort.usage.items()}
    return {
        "n": len(decided),
        "errors": len(comparisons) - len(decided),
        "wins_a": counts["a"],
        "wins_b": counts["b"],
        "ties": counts["tie"],
        "win_rate_a": round(float(worth.mean()), 6) if decided else None,
        "win_rate_a_ci": None if interval is None else [round(end, 6) for end in interval],
        "corrected": _corrected_rate(decided, gold or {}),
        "inconsistent": _mean([not vote.consistent for vote in votes]),
        "dissent": _mean([one.dissent for one in decided if one.dissent is not None]),
        "longer_wins": _longer_wins(decided),
        "words_a": _mean([one.words_a for one in decided]),
        "words_b": _mean([one.words_b for one in decided]),
        "calls": effort.calls,
        "cached": effort.cached,
        "usage": usage,
        "cost_usd": effort.cost_usd(prices or {}),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _longer_wins(decided: Sequence[Comparison]) -> float | None:
    """Share of wins that went to the longer answer; 0.5 if length does not matter."""
    wins = [one for one in decided if one.winner != "tie" and one.words_a != one.words_b]
    return _mean([(one.winner == "a") == (one.words_a > one.words_b) for one in wins])


def _corrected_rate(decided: Sequence[Comparison], gold: Mapping[str, Winner]) -> JSON:
    labelled = [one for one in decided if one.id in gold]
    others = [_WORTH[one.winner] for one in decided if one.id not in gold and one.winner is not None]
    if len(labelled) < 2 or len(others) < 2:
        return None
    rate = prediction_powered(
        others,
        gold=[_WORTH[gold[one.id]] for one in labelled],
        judged_gold=[_WORTH[one.winner] for one in labelled if one.winner is not None],
    )
    return {"method": "prediction_powered", "gold": len(labelled), **rate.to_dict()}
