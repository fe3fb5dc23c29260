"""Rows that a judge graded, and people some of them, as a fit takes them: qualities by the judge, people's grades apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.policy.guarantee import Grades
from confroute.recording import Row
from confroute.recording.grade import quality_by_people


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRows:
    """Rows whose `quality` is the judge's, and what people said of some.

    Attributes
    ----------
    rows : tuple of Row
    human : mapping of str to pair of float
        By id, the qualities of the edge's and the cloud's answer by a person or a reference; the cloud's is 1 where no cloud is
        graded, as in a promise without one.
    notes : tuple of str
        Which rows were left out, and how the judge's grades differ from people's.
    """

    rows: tuple[Row, ...]
    human: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]

    def grades_of(self, rows: Iterable[Row]) -> Grades:
        """People's grades of these rows, in their order."""
        none = (float("nan"), float("nan"))
        pairs = np.array([self.human.get(row.id, none) for row in rows], dtype=np.float64)
        return Grades(edge=pairs[:, 0], cloud=pairs[:, 1])

    def graded(self, rows: Iterable[Row]) -> npt.NDArray[np.bool_]:
        """Which of these rows people graded."""
        return np.array([row.id in self.human for row in rows], dtype=bool)


def judged_rows(rows: Iterable[Row]) -> JudgedRows:
    """Take the rows that a judge graded (`judged`), with people's grades (`quality`) apart.

    Parameters
    ----------
    rows : iterable of Row
        The cloud's answers are to be judged as well if any row holds a grade of one. A `quality` that a judge wrote counts as none.

    Raises
    ------
    CalibrationError
        No row holds what is needed.
    """
    given = list(rows)
    clouds = any(
        row.cloud is not None and (quality_by_people(row.cloud), row.cloud.judged) != (None, None)
        for row in given
    )
    # A failed call has nothing that people could grade: counted as graded, it would make the graded rows a selection.
    kept = [row for row in given if row.edge.error is None and None not in _judged(row, clouds)]
    if not kept:
        needed = (
            "both answers (edge.judged and cloud.judged)" if clouds else "the edge's answer (edge.judged)"
        )
        msg = (
            f"none of {len(given)} rows has a judge's grade of {needed}: `confroute judge grade RUN --into judged` writes them next to "
            "the qualities"
        )
        raise CalibrationError(msg)
    human = {row.id: pair for row in kept if (pair := _human(row, clouds)) is not None}
    return JudgedRows(
        rows=tuple(map(_as_judged, kept)),
        human=human,
        notes=(*_left_out(given, kept), *_difference(kept, human)),
    )


def _judged(row: Row, clouds: bool) -> tuple[float | None, float | None]:
    return row.edge.judged, (None if row.cloud is None else row.cloud.judged) if clouds else 1.0


def _human(row: Row, clouds: bool) -> tuple[float, float] | None:
    edge = quality_by_people(row.edge)
    cloud = (None if row.cloud is None else quality_by_people(row.cloud)) if clouds else 1.0
    return None if edge is None or cloud is None else (edge, cloud)


def _as_judged(row: Row) -> Row:
    cloud = None if row.cloud is None else replace(row.cloud, quality=row.cloud.judged)
    return replace(row, edge=replace(row.edge, quality=row.edge.judged), cloud=cloud)


def _left_out(given: list[Row], kept: list[Row]) -> list[str]:
    missing = len(given) - len(kept)
    return [f"{missing} of {len(given)} rows left out: not judged, or the edge failed"] if missing else []


def _difference(kept: list[Row], human: Mapping[str, tuple[float, float]]) -> list[str]:
    pairs = [(row.edge.judged, human[row.id][0]) for row in kept if row.id in human]
    if not pairs:
        return []
    judged, people = np.array(pairs, dtype=np.float64).T
    return [
        f"qualities are the judge's: on the {len(pairs)} rows that people or a reference graded too, the edge's are {people.mean():.3f} by "
        f"these and {judged.mean():.3f} by the judge, {np.abs(judged - people).mean():.3f} apart per answer"
    ]
