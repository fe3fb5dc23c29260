"""What many comparisons add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from confroute.judge.judging import spent
from confroute.judge.rates import prediction_powered
from confroute.judge.verdicts import Comparison, Winner
from confroute.prices import Price
from confroute.stats.metrics import bootstrap_ci
from confroute.types import JSON

_WORTH: dict[Winner, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


def compared(
    comparisons: Sequence[Comparison],
    *,
    gold: Mapping[str, Winner] | None = None,
    prices: Mapping[str, Price] | None = None,
    resamples: int = 2000,
) -> dict[str, JSON]:
    """Win rate of a over b, how far judges agree with themselves and each other, lengths and cost, as JSON.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Errors are counted and left out of every rate.
    gold : mapping of str to Winner, optional
        Human verdicts of some pairs by id: they correct the rate (`prediction_powered`).
    prices : mapping of str to Price, optional
        By judge.
    resamples : int
        Of the bootstrap over pairs, for the 95 % interval.
    """
    cast = [one for one in comparisons if one.winner is not None]
    worth = np.array([_WORTH[one.winner] for one in cast if one.winner is not None])
    interval = bootstrap_ci(lambda values: float(values.mean()), worth, n=resamples) if cast else None
    votes = [vote for one in cast for vote in one.votes if vote.consistent is not None]
    taken = spent(comparisons)
    counts = Counter(one.winner for one in cast)
    usage: dict[str, JSON] = {name: used.to_dict() for name, used in taken.usage.items()}
    return {
        "n": len(cast),
        "errors": len(comparisons) - len(cast),
        "wins_a": counts["a"],
        "wins_b": counts["b"],
        "ties": counts["tie"],
        "win_rate_a": round(float(worth.mean()), 6) if cast else None,
        "win_rate_a_ci": None if interval is None else [round(end, 6) for end in interval],
        "corrected": _corrected(cast, gold or {}),
        "inconsistent": _share([not vote.consistent for vote in votes]),
        "dissent": _share([one.dissent for one in cast if one.dissent is not None]),
        "longer_wins": _longer(cast),
        "words_a": _share([one.words_a for one in cast]),
        "words_b": _share([one.words_b for one in cast]),
        "calls": taken.calls,
        "cached": taken.cached,
        "usage": usage,
        "cost_usd": taken.cost_usd(prices or {}),
    }


def _share(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _longer(cast: Sequence[Comparison]) -> float | None:
    """Share of wins that went to the longer answer; 0.5 where length does not matter."""
    won = [one for one in cast if one.winner != "tie" and one.words_a != one.words_b]
    return _share([(one.winner == "a") == (one.words_a > one.words_b) for one in won])


def _corrected(cast: Sequence[Comparison], gold: Mapping[str, Winner]) -> JSON:
    known = [one for one in cast if one.id in gold]
    rest = [_WORTH[one.winner] for one in cast if one.id not in gold and one.winner is not None]
    if len(known) < 2 or len(rest) < 2:
        return None
    rate = prediction_powered(
        rest,
        gold=[_WORTH[gold[one.id]] for one in known],
        judged_gold=[_WORTH[one.winner] for one in known if one.winner is not None],
    )
    return {"method": "prediction_powered", "gold": len(known), **rate.to_dict()}
