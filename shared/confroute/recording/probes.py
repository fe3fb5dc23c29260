"""Fit probes of hidden states on a recorded run, and evaluate them out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.recording.rows import RecordError, Row
from confroute.recording.signals import measured
from confroute.signals.probe import ProbeWeights
from confroute.signals.semantic_entropy import SemanticEntropy
from confroute.stats.logistic import ridge_logistic
from confroute.tensors import read_arrays

Floats: TypeAlias = "npt.NDArray[np.float64]"
Target: TypeAlias = Literal["wrong", "semantic_entropy"]
PENALTIES = (1e2, 1e3, 1e4, 1e5)
_LEAST_ROWS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedProbe:
    """A fitted probe and its out-of-fold predictions for the rows it was fitted on.

    Attributes
    ----------
    weights : ProbeWeights
        FittedProbe on all rows.
    ids : tuple of str
    out_of_fold : ndarray of float64 in (0, 1), shape (n,)
        Probability from a probe that was fitted, layer and penalty included, without the row.
    target : ndarray of float64, 0 or 1, shape (n,)
    """

    weights: ProbeWeights
    ids: tuple[str, ...]
    out_of_fold: Floats = field(compare=False)
    target: Floats = field(compare=False)


def fit_probe(
    rows: Sequence[Row], folder: str | Path, *, target: Target = "wrong", folds: int = 5, seed: int = 0
) -> FittedProbe:
    """Fit a logistic probe on the hidden states that `confroute record --hidden` kept.

    Parameters
    ----------
    rows : sequence of Row
        Rows without hidden states or target are left out.
    folder : str or Path
        The folder of the run.
    target : {"wrong", "semantic_entropy"}
        "wrong": the edge's quality is below 0.5. "semantic_entropy": the entropy of the row's samples is above the
        split that leaves the least variance within both halves (Kossen et al., arXiv 2406.15927).
    folds : int
        2 or more; used to choose layer and penalty, and for the out-of-fold predictions.
    seed : int
        Of the assignment to folds.

    Raises
    ------
    CalibrationError
        Fewer than 40 rows with states and target, only one value of the target, or fewer than 2 folds.
    RecordError
        A file of hidden states is missing or damaged.
    MissingExtraError
        safetensors is not installed.

    Notes
    -----
    One of the recorded layers and a ridge penalty are chosen by the cross-validated log-loss, and chosen anew inside each
    outer fold without its rows.
    """
    if folds < 2:
        msg = f"folds is {folds}: expected 2 or more, since with one nothing is left to fit on"
        raise CalibrationError(msg)
    known = [row for row in rows if isinstance(row.extra.get("hidden"), dict)]
    targets = _targets(known, target)
    pairs = [(row, float(y)) for row, y in zip(known, targets, strict=True) if y is not None]
    y = np.array([value for _, value in pairs])
    if len(pairs) < _LEAST_ROWS or len(set(y.tolist())) < 2:
        msg = f"{len(pairs)} rows with hidden states and a target, {int(y.sum())} of them positive: expected at least {_LEAST_ROWS}, of both kinds"
        raise CalibrationError(msg)
    layers, states = _states([row for row, _ in pairs], Path(folder))
    fold = np.random.default_rng(seed).permutation(len(y)) % folds
    out_of_fold = np.empty(len(y))
    for held_out in range(folds):
        apart = fold == held_out
        part = _chosen(layers, states[:, ~apart], y[~apart], folds, seed)
        out_of_fold[apart] = part.probability(states[layers.index(part.layers[0])][apart])
    weights = replace(_chosen(layers, states, y, folds, seed), target=target)
    about = {**weights.about, "rows": len(y), "positive": int(y.sum()), "model": pairs[0][0].edge.model}
    return FittedProbe(
        weights=replace(weights, about=about),
        ids=tuple(row.id for row, _ in pairs),
        out_of_fold=out_of_fold,
        target=y,
    )


def _targets(rows: Sequence[Row], target: Target) -> list[float | None]:
    if target == "wrong":
        return [None if row.edge.quality is None else float(row.edge.quality < 0.5) for row in rows]
    found = [measured(row, SemanticEntropy(n=max(2, len(row.edge.samples)))) for row in rows]
    values = np.array([one.uncertainty for one in found if one is not None])
    split = _split(values)
    return [None if one is None else float(one.uncertainty > split) for one in found]


def _split(values: Floats) -> float:
    """The value that splits the others into two groups with the least sum of squares within."""
    candidates = np.unique(values)[:-1]
    if not candidates.size:
        return 0.0
    left = [float(side.var() * side.size) for side in (values[values <= c] for c in candidates)]
    right = [float(side.var() * side.size) for side in (values[values > c] for c in candidates)]
    return float(candidates[int(np.argmin(np.add(left, right)))])


def _states(rows: Sequence[Row], folder: Path) -> tuple[list[int], Floats]:
    """Layers and their states, shape (layers, rows, width)."""
    files = [folder / str(row.extra["hidden"]["file"]) for row in rows]  # type: ignore[index,call-overload]  # JSON; rows without are left out
    read = [read_arrays(file, "hidden states", RecordError) for file in files]
    layers = sorted(int(name.partition(".")[2]) for name in read[0])
    stacked = [[one[f"layer.{layer}"] for one in read] for layer in layers]
    return layers, np.asarray(stacked, dtype=np.float64)


def _chosen(layers: Sequence[int], states: Floats, y: Floats, folds: int, seed: int) -> ProbeWeights:
    fold = np.random.default_rng(seed + 1).permutation(len(y)) % folds
    best: tuple[float, int, float] | None = None
    for at in range(len(layers)):
        for penalty in PENALTIES:
            loss = _loss(states[at], y, fold, penalty)
            if best is None or loss < best[0]:
                best = (loss, at, penalty)
    assert best is not None, "there is at least one layer"
    loss, at, penalty = best
    about: dict[str, str | int | float | None] = {"penalty": penalty, "log_loss": round(loss, 6)}
    return replace(_logistic(states[at], y, penalty), layers=(layers[at],), about=about)


def _loss(x: Floats, y: Floats, fold: npt.NDArray[np.int64], penalty: float) -> float:
    total = 0.0
    for held_out in np.unique(fold):
        apart = fold == held_out
        p = np.clip(_logistic(x[~apart], y[~apart], penalty).probability(x[apart]), 1e-9, 1 - 1e-9)
        total -= float((y[apart] * np.log(p) + (1 - y[apart]) * np.log(1 - p)).sum())
    return total / len(y)


def _logistic(x: Floats, y: Floats, penalty: float) -> ProbeWeights:
    """Ridge logistic regression on standardised columns."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (x - mean) / scale
    bias, weights = ridge_logistic(z, y, penalty=penalty)
    return ProbeWeights(layers=(0,), mean=mean, scale=scale, weights=weights, bias=bias, target="")
