"""Runs the label pipeline on Ray Data, for more prompts than one machine can label: many workers, one file."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from confroute.errors import ConfrouteError, MissingExtraError, PolicyError
from confroute.labels.labeller import Labeller
from confroute.labels.rows import label_from_dict
from confroute.labels.run import LabelOutcome, label_row
from confroute.recording import Row, row_from_dict

# A worker that dies loses its unfinished block: small blocks lose little, and show progress.
_BLOCK_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Labels on the workers of a Ray cluster, each with its own models; a worker that dies is replaced, its block repeated.

    Parameters
    ----------
    workers : int
    address : str, optional
        Address of a cluster ("auto", "ray://..."); by default a cluster is started on this machine.
    cpus : float
        Number of cores per worker.

    Notes
    -----
    Models must be sent to the workers: name them "local:NAME", "openai:MODEL" or "MODULE:OBJECT". Each worker reads API
    keys from its own environment.
    """

    workers: int = 2
    address: str | None = None
    cpus: float = 1.0

    def __call__(self, labeller: Labeller, rows: Iterable[Row]) -> Generator[LabelOutcome, None, None]:
        """Label the rows, and yield the outcomes in their order.

        Raises
        ------
        MissingExtraError
            Ray Data is not installed.
        """
        ray = _import_ray()
        items = [{"row": json.dumps(row.to_dict())} for row in rows]
        if not items:
            return
        starts_cluster = not ray.is_initialized()
        if starts_cluster:
            local = {"num_cpus": max(1, round(self.workers * self.cpus))} if self.address is None else {}
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False, **local)
        try:
            yield from self._outcomes(ray, labeller, items)
        finally:
            if starts_cluster:
                ray.shutdown()

    def _outcomes(
        self, ray: Any, labeller: Labeller, items: list[dict[str, str]]
    ) -> Generator[LabelOutcome, None, None]:
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = max(1, len(items) // _BLOCK_ROWS)
        data = ray.data.from_items(items, override_num_blocks=blocks).map(
            _Worker, fn_constructor_args=(labeller,), concurrency=self.workers, num_cpus=self.cpus
        )
        try:
            for item in data.iter_rows():
                yield _outcome_from_dict(json.loads(item["outcome"]))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, ConfrouteError) else PolicyError(str(error)) from error


class _Worker:
    """One worker, whose models stay loaded from row to row."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller

    def __call__(self, item: dict[str, str]) -> dict[str, str]:
        outcome = label_row(self._labeller, row_from_dict(json.loads(item["row"])))
        data = {
            "id": outcome.id,
            "label": None if outcome.label is None else outcome.label.to_dict(),
            "error": outcome.error,
            "row": None if outcome.row is None else outcome.row.to_dict(),
        }
        return {"outcome": json.dumps(data)}


def _outcome_from_dict(data: dict[str, Any]) -> LabelOutcome:
    return LabelOutcome(
        id=data["id"],
        label=None if data["label"] is None else label_from_dict(data["label"]),
        error=data["error"],
        row=None if data["row"] is None else row_from_dict(data["row"]),
    )


def _import_ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]  an optional dependency
        import ray.data  # pyright: ignore[reportMissingImports]  as above
        import ray.exceptions  # pyright: ignore[reportMissingImports]  as above
    except ImportError as error:
        raise MissingExtraError(extra="ray", needed_for="--engine ray") from error
    return ray
