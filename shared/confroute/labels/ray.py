"""The same pipeline on Ray Data, for more prompts than one machine labels: workers on many machines, one file here."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from confroute.errors import ConfrouteError, MissingExtraError, PolicyError
from confroute.labels.labeller import Labeller
from confroute.labels.rows import label_from_dict
from confroute.labels.run import Outcome, outcome
from confroute.recording import Row, row_from_dict

# A worker that dies loses what it has begun of its block: small blocks lose little and show progress.
_BLOCK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Workers of a Ray cluster, each with its own models; a worker that dies is replaced and its block done again.

    Parameters
    ----------
    workers : int
    address : str, optional
        Of a cluster ("auto", "ray://..."); a cluster on this machine by default.
    cpus : float
        Cores that one worker takes.

    Notes
    -----
    Models are given by what can be sent to workers: "local:NAME", "openai:MODEL" and "MODULE:OBJECT" names can. Keys are
    read from each worker's own environment.
    """

    workers: int = 2
    address: str | None = None
    cpus: float = 1.0

    def __call__(self, labeller: Labeller, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        """Label in order.

        Raises
        ------
        MissingExtraError
            Ray Data is not installed.
        """
        ray = _package()
        items = [{"row": json.dumps(row.to_dict())} for row in rows]
        if not items:
            return
        own = not ray.is_initialized()
        if own:
            local = {"num_cpus": max(1, round(self.workers * self.cpus))} if self.address is None else {}
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False, **local)
        try:
            yield from self._outcomes(ray, labeller, items)
        finally:
            if own:
                ray.shutdown()

    def _outcomes(
        self, ray: Any, labeller: Labeller, items: list[dict[str, str]]
    ) -> Generator[Outcome, None, None]:
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = max(1, len(items) // _BLOCK)
        data = ray.data.from_items(items, override_num_blocks=blocks).map(
            _Work, fn_constructor_args=(labeller,), concurrency=self.workers, num_cpus=self.cpus
        )
        try:
            for item in data.iter_rows():
                yield _outcome(json.loads(item["outcome"]))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, ConfrouteError) else PolicyError(str(error)) from error


class _Work:
    """One worker: its models stay loaded from row to row."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller

    def __call__(self, item: dict[str, str]) -> dict[str, str]:
        found = outcome(self._labeller, row_from_dict(json.loads(item["row"])))
        told = {
            "id": found.id,
            "label": None if found.label is None else found.label.to_dict(),
            "error": found.error,
            "row": None if found.row is None else found.row.to_dict(),
        }
        return {"outcome": json.dumps(told)}


def _outcome(told: dict[str, Any]) -> Outcome:
    return Outcome(
        id=told["id"],
        label=None if told["label"] is None else label_from_dict(told["label"]),
        error=told["error"],
        row=None if told["row"] is None else row_from_dict(told["row"]),
    )


def _package() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]  user's choice
        import ray.data  # pyright: ignore[reportMissingImports]  an extra of its own
        import ray.exceptions  # pyright: ignore[reportMissingImports]  as above
    except ImportError as error:
        raise MissingExtraError(extra="ray", needed_for="--engine ray") from error
    return ray
