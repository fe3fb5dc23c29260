"""Recorded rows as columns: quality and cost of each call if the draft is kept, and if the cloud answers."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
from confroute.recording.packed import Outline, outlines_of, picked, with_columns
from confroute.recording.signals import Measured, rows_with_signals
from confroute.signals import Recorded, Signal
from confroute.types import JSON

Array = npt.NDArray[np.float64]
_BILL = tuple(one.name for one in fields(Bill))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Graded calls by column; NaN marks what is unknown.

    Attributes
    ----------
    rows : sequence of Row
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

    rows: Sequence[Row]
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
            rows=picked(self.rows, np.flatnonzero(keep)),
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
    given = rows if isinstance(rows, Sequence) else tuple(rows)
    outlines = outlines_of(given)
    _refuse_duplicates(outlines)
    places = _graded(outlines) if graded_only or not outlines else np.arange(len(outlines))
    drawn = min((count for at in places.tolist() if (count := outlines[at].samples) > 1), default=0)
    chosen = given if places.size == len(given) else picked(given, places)
    columns = _Columns(rates=rates or Rates(), on_unfinished=on_unfinished, drawn=drawn)
    for row in rows_with_signals(chosen, samples=drawn or None):
        columns.add(row)
    signals = columns.signal_columns()
    return Table(
        rows=with_columns(chosen, signals, columns.measured_by),
        edge_quality=np.array(columns.edge_quality),
        cloud_quality=np.array(columns.cloud_quality),
        draft=_arrays(columns.draft),
        cloud=_arrays(columns.cloud),
        samples=_arrays(columns.samples),
        failed=np.array(columns.failed, dtype=bool),
        rejected=np.array(columns.rejected, dtype=bool),
        drawn=drawn,
        left_out=len(given) - places.size,
        signals=signals,
        live=columns.measured.live_signals(samples=drawn),
    )


def _empty_bills() -> dict[str, array[float]]:
    return {name: array("d") for name in _BILL}


def _arrays(columns: Mapping[str, array[float]]) -> dict[str, Array]:
    return {name: np.array(values) for name, values in columns.items()}


@dataclass(slots=True, kw_only=True)
class _Columns:
    """The columns of a `Table`, row by row: no row is held."""

    rates: Rates
    on_unfinished: str
    drawn: int
    edge_quality: array[float] = field(default_factory=lambda: array("d"))
    cloud_quality: array[float] = field(default_factory=lambda: array("d"))
    draft: dict[str, array[float]] = field(default_factory=_empty_bills)
    cloud: dict[str, array[float]] = field(default_factory=_empty_bills)
    samples: dict[str, array[float]] = field(default_factory=_empty_bills)
    failed: list[bool] = field(default_factory=list)
    rejected: list[bool] = field(default_factory=list)
    signals: dict[str, array[float]] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    measured_by: list[Mapping[str, JSON]] = field(default_factory=list)
    _different: list[Mapping[str, JSON]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take a row with its signals."""
        edge, cloud = row.edge, row.cloud
        for name, value in row.signals.items():
            column = self.signals.setdefault(name, array("d"))
            # Rows need not hold the same columns.
            column.extend([NAN] * (len(self.failed) - len(column)))
            column.append(NAN if value is None else value)
        self.edge_quality.append(_edge_quality(edge))
        self.cloud_quality.append(NAN if cloud is None or cloud.quality is None else cloud.quality)
        bills = (
            (self.draft, bill_of_draft(edge, self.rates)),
            (self.cloud, bill_of_cloud(cloud, self.rates)),
            (self.samples, bill_of_samples(edge, edge.samples[: self.drawn], self.rates)),
        )
        for columns, bill in bills:
            for name, column in columns.items():
                column.append(getattr(bill, name))
        self.failed.append(edge.error is not None)
        self.rejected.append(_is_rejected(edge, self.on_unfinished))
        self.measured.add(row)
        self.measured_by.append(self._shared(row.measured_by))

    def signal_columns(self) -> dict[str, Array]:
        """The signals, by column; NaN behind the last row that holds one."""
        n = len(self.failed)
        return {
            name: np.concatenate([np.array(values), np.full(n - len(values), NAN)])
            for name, values in self.signals.items()
        }

    def _shared(self, measured_by: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """One and the same object for all rows that were measured alike."""
        for one in self._different:
            if one == measured_by:
                return one
        self._different.append(measured_by)
        return measured_by


def _graded(outlines: Sequence[Outline]) -> npt.NDArray[np.intp]:
    counts = [one.edge_graded or one.edge_failed for one in outlines]
    if any(one.cloud_graded for one, counted in zip(outlines, counts, strict=True) if counted):
        counts = [one.cloud_graded and counted for one, counted in zip(outlines, counts, strict=True)]
    places = np.flatnonzero(counts)
    if not any(outlines[at].edge_graded for at in places.tolist()):
        msg = f"none of {len(outlines)} recorded rows has a graded edge answer (edge.quality): grade them before fitting"
        raise CalibrationError(msg)
    return places


def _refuse_duplicates(rows: Sequence[Outline]) -> None:
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
