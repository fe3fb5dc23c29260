"""Recorded rows as columns: what keeping and what sending each call would have given and taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.fitting.rates import (
    NAN,
    Bill,
    Rates,
    bill_of_cloud,
    bill_of_draft,
    bill_of_samples,
)
from confroute.recording import Row, with_signals
from confroute.recording.extraction import kind_of_run
from confroute.signals.answers import Kind

Array = npt.NDArray[np.float64]
_BILL = ("usd", "latency_s", "sent_tokens", "energy_j")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Graded calls by column; NaN marks what is not known.

    Attributes
    ----------
    rows : tuple of Row
        With every signal that they hold evidence for.
    edge_quality, cloud_quality : array of float, shape (n,)
        Of an edge that failed 0: the cloud had to answer. `cloud_quality` is NaN throughout where the cloud was not graded.
    draft, cloud : mapping of str to array, shape (n,)
        Bills of the edge's draft and of the cloud's answer, by "usd", "latency_s", "sent_tokens", "energy_j".
    samples : mapping of str to array, shape (n,)
        Bill of all samples of a row.
    failed : array of bool, shape (n,)
        Rows whose edge failed: nothing can keep them.
    drawn : int
        Samples that signals are measured by: the fewest of any row that holds 2 or more; 0 where none does.
    left_out : int
        Rows that were not graded.
    kind : {"auto", "number", "date", "option", "text"}
        What the answers were compared by.
    """

    rows: tuple[Row, ...]
    edge_quality: Array
    cloud_quality: Array
    draft: dict[str, Array]
    cloud: dict[str, Array]
    samples: dict[str, Array]
    failed: npt.NDArray[np.bool_]
    drawn: int
    left_out: int
    kind: Kind = "auto"

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def cloud_graded(self) -> bool:
        """Whether the cloud's answers are graded."""
        return not bool(np.isnan(self.cloud_quality).any())

    @property
    def columns(self) -> tuple[str, ...]:
        """Signals that were measured on a row at least, in the order of the rows."""
        names = dict.fromkeys(name for row in self.rows for name in row.signals)
        return tuple(name for name in names if not np.isnan(self.signal(name)).all())

    def signal(self, column: str) -> Array:
        """A signal's uncertainty by row; NaN where it was not measured, or where the edge failed."""
        found = [None if row.edge.error is not None else row.signals.get(column) for row in self.rows]
        return np.array([NAN if value is None else value for value in found], dtype=np.float64)

    def matrix(self, columns: Sequence[str]) -> Array:
        """Some signals side by side; shape (n, columns)."""
        return np.column_stack([self.signal(name) for name in columns])

    def part(self, keep: npt.NDArray[np.bool_]) -> Table:
        """The rows where `keep` is True."""

        def cut(columns: dict[str, Array]) -> dict[str, Array]:
            return {name: values[keep] for name, values in columns.items()}

        return Table(
            rows=tuple(row for row, kept in zip(self.rows, keep.tolist(), strict=True) if kept),
            edge_quality=self.edge_quality[keep],
            cloud_quality=self.cloud_quality[keep],
            draft=cut(self.draft),
            cloud=cut(self.cloud),
            samples=cut(self.samples),
            failed=self.failed[keep],
            drawn=self.drawn,
            left_out=self.left_out,
            kind=self.kind,
        )


def table_of(rows: Iterable[Row], *, rates: Rates | None = None) -> Table:
    """The graded rows of a recorded run.

    Parameters
    ----------
    rows : iterable of Row
        A row counts if its edge is graded or failed; if any row's cloud is graded, only rows whose cloud is graded count.
    rates : Rates, optional

    Raises
    ------
    CalibrationError
        No row is graded, an id stands twice (a promise would count its row twice), or answers were read by several kinds.
    """
    given, at = list(rows), rates or Rates()
    _refuse_duplicates(given)
    graded = [row for row in given if row.edge.quality is not None or row.edge.error is not None]
    if any(_cloud_quality(row) is not None for row in graded):
        graded = [row for row in graded if _cloud_quality(row) is not None]
    if not any(row.edge.quality is not None for row in graded):
        msg = f"none of {len(given)} recorded rows has a graded edge answer (edge.quality): grade them before fitting"
        raise CalibrationError(msg)
    counts = [len(row.edge.samples) for row in graded if len(row.edge.samples) > 1]
    drawn = min(counts, default=0)
    measured = tuple(with_signals(row, samples=drawn or None) for row in graded)
    return Table(
        rows=measured,
        edge_quality=_column(row.edge.quality or 0.0 for row in measured),
        cloud_quality=_column(NAN if (q := _cloud_quality(row)) is None else q for row in measured),
        draft=_bills([bill_of_draft(row.edge, at) for row in measured]),
        cloud=_bills([bill_of_cloud(row.cloud, at) for row in measured]),
        samples=_bills([bill_of_samples(row.edge, row.edge.further()[:drawn], at) for row in measured]),
        failed=np.array([row.edge.error is not None for row in measured]),
        drawn=drawn,
        left_out=len(given) - len(graded),
        kind=kind_of_run(graded),
    )


def _refuse_duplicates(rows: Sequence[Row]) -> None:
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        shown = ", ".join(map(repr, twice[:5])) + (", ..." if len(twice) > 5 else "")
        msg = (
            f"{len(twice)} ids stand more than once among {len(rows)} rows: {shown}; expected one row per id"
        )
        raise CalibrationError(msg)


def _cloud_quality(row: Row) -> float | None:
    return None if row.cloud is None else row.cloud.quality


def _column(values: Iterable[float]) -> Array:
    return np.array(list(values), dtype=np.float64)


def _bills(bills: Sequence[Bill]) -> dict[str, Array]:
    return {name: _column(getattr(bill, name) for bill in bills) for name in _BILL}
