"""Signals of a recorded run on the replay's axes, total cost included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.methods import without_training
from confroute.bench.replay.protocol import Result, measure
from confroute.recording import RecordError, Row, with_signals


def replay_recorded(
    rows: Sequence[Row], *, name: str, resamples: int = 1000
) -> tuple[Benchmark, list[Result]]:
    """Measure every signal that all graded rows have, after the edge has answered.

    Parameters
    ----------
    rows : sequence of Row
        Rows whose edge or cloud is ungraded are left out.
    name : str
        Of the data, for the table.
    resamples : int

    Returns
    -------
    Benchmark and list of Result
        Costs are the recorded `cost_usd` where every row has both; else 0 for the edge and 1 for a cloud call, so that
        "USD a thousand prompts" counts cloud calls. Each routed prompt pays the edge's draft as well.

    Raises
    ------
    RecordError
        No row with both grades, or a cloud that is on average no better than the edge.
    """
    graded = [with_signals(row) for row in rows if _graded(row)]
    weak = np.array([row.edge.quality for row in graded], dtype=np.float64)
    strong = np.array([row.cloud.quality for row in graded if row.cloud is not None], dtype=np.float64)
    if not graded or strong.mean() <= weak.mean():
        msg = f"{len(graded)} of {len(rows)} rows have both grades (edge {weak.mean() if graded else 0:.3f}, cloud {strong.mean() if graded else 0:.3f}): expected some, and a better cloud"
        raise RecordError(msg)
    edge_usd, cloud_usd = _costs(graded)
    bench = Benchmark(
        name=name,
        prompts=tuple(row.prompt or "" for row in graded),
        weak=weak,
        strong=strong,
        weak_usd=edge_usd,
        # The draft has been paid when a call is escalated.
        strong_usd=edge_usd + cloud_usd,
        dropped=len(rows) - len(graded),
    )
    names = [key for key in graded[0].signals if all(row.signals.get(key) is not None for row in graded)]
    scored = [*without_training(bench)]
    scored += [(key, np.array([row.signals[key] for row in graded], dtype=np.float64)) for key in names]
    return bench, [measure(key, scores, bench, resamples=resamples) for key, scores in scored]


def _graded(row: Row) -> bool:
    return row.edge.quality is not None and row.cloud is not None and row.cloud.quality is not None


def _costs(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    edge = [row.edge.cost_usd for row in rows]
    cloud = [row.cloud.cost_usd if row.cloud is not None else None for row in rows]
    if None in edge or None in cloud:
        return np.zeros(len(rows)), np.full(len(rows), 1.0)
    return np.array(edge, dtype=np.float64), np.array(cloud, dtype=np.float64)
