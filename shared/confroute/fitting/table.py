"""Recorded rows as columns: quality and cost of each call if the draft is kept, and if the cloud answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from confroute.asks import Evidence
from confroute.errors import CalibrationError
from confroute.fitting.rates import (
    NAN,
    Bill,
    Rates,
    bill_of_cloud,
    bill_of_draft,
    bill_of_samples,
)
from confroute.fitting.recorded import draft_of
from confroute.policy.verdict import is_empty, verdict_on_end
from confroute.reading import shown_ids
from confroute.recording import Row, Side
from confroute.recording.signals import live_signals, rows_with_signals
from confroute.signals import Recorded, Signal

Array = npt.NDArray[np.float64]
_BILL = tuple(one.name for one in fields(Bill))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Graded calls by column; NaN marks what is unknown.

    Attributes
    ----------
    rows : tuple of Row
        With every signal for which they hold evidence.
    edge_quality, cloud_quality : array of float, shape (n,)
        `edge_quality` is 0 if the edge failed, since the cloud has to answer then. `cloud_quality` is NaN on all rows if the
        cloud was not graded.
    draft, cloud : mapping of str to array, shape (n,)
        Bills of the edge's draft and of the cloud's answer, by the fields of `confroute.fitting.rates.Bill`.
    samples : mapping of str to array, shape (n,)
        Bill of all samples of a row.
    failed : array of bool, shape (n,)
        Rows whose edge failed: no policy can keep their draft.
    rejected : array of bool, shape (n,)
        Rows whose draft a cascade rejects before it measures anything: it is empty or not whole.
    drawn : int
        Number of samples from which signals are measured: the fewest of any row with 2 or more; 0 if there is none.
    left_out : int
        Number of rows that were not graded.
    signals : mapping of str to array, shape (n,)
        Uncertainty by column, in the order of the rows' columns; NaN where it was not measured.
    live : mapping of str to Signal or str
        The signal that measures each column on new calls, or why there is none; see
        `confroute.recording.signals.live_signals`.
    """

    rows: tuple[Row, ...]
    edge_quality: Array
    cloud_quality: Array
    draft: dict[str, Array]
    cloud: dict[str, Array]
    samples: dict[str, Array]
    failed: npt.NDArray[np.bool_]
    rejected: npt.NDArray[np.bool_]
    drawn: int
    left_out: int
    signals: Mapping[str, Array]
    live: Mapping[str, Signal | str]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def cloud_graded(self) -> bool:
        """Whether the cloud's answers are graded."""
        return not bool(np.isnan(self.cloud_quality).any())

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns with a value on at least one row, in the order of the rows."""
        return tuple(name for name in self.signals if not np.isnan(self.signal(name)).all())

    def signal(self, column: str) -> Array:
        """Uncertainty of a signal by row; NaN where it was not measured, or where no threshold keeps the draft."""
        if column not in self.signals:
            return np.full(self.n, NAN)
        return np.where(self.failed | self.rejected, NAN, self.signals[column])

    def signal_of(self, column: str) -> Signal:
        """The signal that measures a column on new calls; `Recorded` if there is none."""
        found = self.live.get(column, "")
        return Recorded(column=column) if isinstance(found, str) else found

    def matrix(self, columns: Sequence[str]) -> Array:
        """Uncertainties of several signals, shape (n, columns)."""
        return np.column_stack([self.signal(name) for name in columns])

    def part(self, keep: npt.NDArray[np.bool_]) -> Table:
        """The rows where `keep` is True."""

        def cut(columns: Mapping[str, Array]) -> dict[str, Array]:
            return {name: values[keep] for name, values in columns.items()}

        return Table(
            rows=tuple(row for row, kept in zip(self.rows, keep.tolist(), strict=True) if kept),
            edge_quality=self.edge_quality[keep],
            cloud_quality=self.cloud_quality[keep],
            draft=cut(self.draft),
            cloud=cut(self.cloud),
            samples=cut(self.samples),
            failed=self.failed[keep],
            rejected=self.rejected[keep],
            drawn=self.drawn,
            left_out=self.left_out,
            signals=cut(self.signals),
            live=self.live,
        )


def table_of(
    rows: Iterable[Row],
    *,
    rates: Rates | None = None,
    on_unfinished: Literal["reject", "judge"] = "reject",
    graded_only: bool = True,
) -> Table:
    """Collect the rows of a recorded run, by default the graded ones.

    Parameters
    ----------
    rows : iterable of Row
        A row counts if its edge is graded or failed. If the cloud is graded on any row, only rows with a graded cloud count.
    rates : Rates, optional
    on_unfinished : {"reject", "judge"}
        As of the `Cascade` that the rows stand for: "judge" leaves drafts that are not whole to its gates.
    graded_only : bool
        False takes every row; a quality is NaN where there is no grade.

    Raises
    ------
    CalibrationError
        No row is graded (or there is none), or an id occurs twice: a promise would count its row twice.
    """
    given, at = list(rows), rates or Rates()
    _refuse_duplicates(given)
    graded = _graded(given) if graded_only or not given else given
    counts = [len(row.edge.samples) for row in graded if len(row.edge.samples) > 1]
    drawn = min(counts, default=0)
    measured = tuple(rows_with_signals(graded, samples=drawn or None))
    return Table(
        rows=measured,
        edge_quality=_column(_edge_quality(row.edge) for row in measured),
        cloud_quality=_column(NAN if (q := _cloud_quality(row)) is None else q for row in measured),
        draft=_bills([bill_of_draft(row.edge, at) for row in measured]),
        cloud=_bills([bill_of_cloud(row.cloud, at) for row in measured]),
        samples=_bills([bill_of_samples(row.edge, row.edge.samples[:drawn], at) for row in measured]),
        failed=np.array([row.edge.error is not None for row in measured]),
        rejected=np.array([_is_rejected(row.edge, on_unfinished) for row in measured]),
        drawn=drawn,
        left_out=len(given) - len(graded),
        signals=_signals(measured),
        live=live_signals(measured, samples=drawn),
    )


def _graded(given: Sequence[Row]) -> list[Row]:
    graded = [row for row in given if row.edge.quality is not None or row.edge.error is not None]
    if any(_cloud_quality(row) is not None for row in graded):
        graded = [row for row in graded if _cloud_quality(row) is not None]
    if not any(row.edge.quality is not None for row in graded):
        msg = f"none of {len(given)} recorded rows has a graded edge answer (edge.quality): grade them before fitting"
        raise CalibrationError(msg)
    return graded


def _refuse_duplicates(rows: Sequence[Row]) -> None:
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        msg = f"{len(twice)} ids occur more than once among {len(rows)} rows: {shown_ids(twice)}; expected one row per id"
        raise CalibrationError(msg)


def _is_rejected(edge: Side, on_unfinished: str) -> bool:
    """Whether `Cascade`, as a fit makes it, rejects a draft whatever it measures."""
    if edge.error is not None:
        return False
    draft = draft_of(edge)
    return (
        is_empty(draft, Evidence())
        or draft.flaw is not None
        or (on_unfinished == "reject" and verdict_on_end("edge", draft) is not None)
    )


def _edge_quality(edge: Side) -> float:
    if edge.error is not None:
        return edge.quality or 0.0
    return NAN if edge.quality is None else edge.quality


def _cloud_quality(row: Row) -> float | None:
    return None if row.cloud is None else row.cloud.quality


def _signals(rows: Sequence[Row]) -> dict[str, Array]:
    names = dict.fromkeys(name for row in rows for name in row.signals)
    return {
        name: _column(NAN if (u := row.signals.get(name)) is None else u for row in rows) for name in names
    }


def _column(values: Iterable[float]) -> Array:
    return np.fromiter(values, dtype=np.float64)


def _bills(bills: Sequence[Bill]) -> dict[str, Array]:
    return {name: _column(getattr(bill, name) for bill in bills) for name in _BILL}
