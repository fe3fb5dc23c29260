"""A sheet of answers for a person to grade: drawn at random, written as CSV, and read back into the run."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from confroute.errors import PolicyError
from confroute.judge.files import SideName, question_text, reference_text
from confroute.recording import RecordError, Row, Side
from confroute.recording.grade import quality_by_people

GRADES = {"edge": "edge_quality", "cloud": "cloud_quality"}
# A spreadsheet takes a cell that begins so as a formula; the quote itself, so that reading takes off exactly what writing put on.
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")


def drawn(rows: Iterable[Row], n: int, *, seed: int = 0) -> list[Row]:
    """Draw rows for a person to grade, each as likely as any other.

    Parameters
    ----------
    rows : iterable of Row
        Those whose edge failed are left out, and those that are graded by people or a reference already.
    n : int
    seed : int

    Returns
    -------
    list of Row
        In the order of the run.

    Raises
    ------
    PolicyError
        Fewer than `n` rows are left to draw from.
    """
    left = [row for row in rows if row.edge.text is not None and _open(row)]
    if len(left) < n:
        msg = f"{n} rows were asked for: {len(left)} hold answers that no person or reference has graded yet"
        raise PolicyError(msg)
    places = np.sort(np.random.default_rng(seed).permutation(len(left))[:n])
    return [left[int(place)] for place in places]


def _open(row: Row) -> bool:
    return any(quality_by_people(side) is None for side in _answered(row).values())


def _answered(row: Row) -> dict[SideName, Side]:
    sides: dict[SideName, Side | None] = {"edge": row.edge, "cloud": row.cloud}
    return {name: side for name, side in sides.items() if side is not None and side.text is not None}


def write_sheet(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write a CSV with a line per row: question, reference, both answers, and two empty columns for their qualities.

    No grade of a judge stands in it: who grades is not to know. Texts that a spreadsheet would take as formulas begin with "'".
    """
    head = ["id", "question", "reference", "edge_answer", "cloud_answer", *GRADES.values()]
    with Path(path).open("x", encoding="utf-8-sig", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(head)
        for row in rows:
            texts = {name: side.text or "" for name, side in _answered(row).items()}
            cells = [
                row.id,
                question_text(row),
                reference_text(row) or "",
                texts.get("edge", ""),
                texts.get("cloud", ""),
            ]
            sheet.writerow([*map(_cell, cells), "", ""])


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_GUARDED) else text


def read_sheet(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read the grades of a sheet: by id, the qualities that were filled in by "edge" and "cloud".

    Raises
    ------
    RecordError
        A file that is no CSV in UTF-8, no such columns, a grade that is no number from 0 to 1, or an id twice.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            # Where a comma stands in numbers, spreadsheets separate cells by something else.
            head = file.readline()
            file.seek(0)
            return _grades(csv.DictReader(file, delimiter=max(",;\t", key=head.count)), path)
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} cannot be read: {error}; expected a sheet of `confroute judge sheet`, saved as CSV in UTF-8"
        raise RecordError(msg) from error


def _grades(lines: csv.DictReader[str], path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    if missing := {"id", *GRADES.values()} - {*(lines.fieldnames or ())}:
        msg = (
            f"{path} has no column {', '.join(sorted(missing))}: expected a sheet of `confroute judge sheet`"
        )
        raise RecordError(msg)
    grades: dict[str, dict[str, float]] = {}
    for line in lines:
        where = f"{path}, line {lines.line_num}"
        name = (line["id"] or "").removeprefix("'")
        if name in grades:
            msg = f"{where}: the id {name!r} stands above already: expected one line per id"
            raise RecordError(msg)
        grades[name] = {
            side: _grade(cell, f"{where}, {column}")
            for side, column in GRADES.items()
            if (cell := (line[column] or "").strip())
        }
    return grades


def _grade(cell: str, where: str) -> float:
    try:
        # Spreadsheets of many countries write a comma.
        grade = float(cell.replace(",", "."))
    except ValueError:
        grade = -1.0
    if not 0 <= grade <= 1:
        msg = f"{where} is {cell!r}: expected a number from 0 (wrong) to 1 (right)"
        raise RecordError(msg)
    return grade


def with_people(rows: Iterable[Row], grades: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    """Yield the rows with the qualities of a sheet, which take the place of a judge's.

    Raises
    ------
    RecordError
        After the last row: the sheet grades an id, or an answer, that the run does not hold.
    """
    left = {name: {*sides} for name, sides in grades.items()}
    for row in rows:
        given = grades.get(row.id, {})
        sides = {
            name: _by_person(side, given[name]) for name, side in _answered(row).items() if name in given
        }
        left.get(row.id, set()).difference_update(sides)
        yield replace(row, edge=sides.get("edge", row.edge), cloud=sides.get("cloud", row.cloud))
    if unknown := {name: missing for name, missing in left.items() if missing}:
        name, missing = next(iter(unknown.items()))
        msg = (
            f"the sheet grades {len(unknown)} answers that the run does not hold, the first of id {name!r} ({', '.join(sorted(missing))}): expected "
            "the run that it was drawn from"
        )
        raise RecordError(msg)


def incomplete(rows: Iterable[Row], grades: Mapping[str, Mapping[str, float]]) -> int:
    """Count the rows of a sheet that a promise leaves out: an answer is not graded, though others of its model are.

    Parameters
    ----------
    rows : iterable of Row
        With the grades; see `with_people`.
    grades : mapping
        As of `read_sheet`.
    """
    graded = {side for sides in grades.values() for side in sides} or {*GRADES}
    return sum(
        any(name in graded and quality_by_people(side) is None for name, side in _answered(row).items())
        for row in rows
        if row.id in grades
    )


def _by_person(side: Side, quality: float) -> Side:
    extra = {name: value for name, value in side.extra.items() if name != "judge"}
    return replace(side, quality=quality, extra=extra)
