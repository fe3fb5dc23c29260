"""A run of the label pipeline: many prompts, results on disk as they come, taken up again where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from filelock import FileLock, Timeout

from confroute.concurrency import bounded
from confroute.errors import ConfrouteError, MissingExtraError, ModelError, PolicyError
from confroute.labels.labeller import Labeller
from confroute.labels.rows import Label, Summary, read_labels
from confroute.recording import RecordError, Row, append_row, read_rows
from confroute.recording.prompts import cut_torn
from confroute.types import JSON

Outcomes: TypeAlias = "Generator[Outcome, None, None]"
_SET_UP = (MissingExtraError, ModelError, PolicyError)


class LabelRunError(ConfrouteError, RuntimeError):
    """A run that was stopped: nothing but failures, or another process at work on the same file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one prompt.

    Attributes
    ----------
    id : str
    label : Label or None
    error : str or None
        Why there is no label.
    row : Row or None
        The row with both models' answers, where they were drawn now.
    """

    id: str
    label: Label | None = None
    error: str | None = None
    row: Row | None = None


class Engine(Protocol):
    """Labels rows and gives the outcomes in the order of the rows."""

    def __call__(self, labeller: Labeller, rows: Iterable[Row]) -> Outcomes:
        """Label `rows`, which may be many."""
        ...


def outcome(labeller: Labeller, row: Row) -> Outcome:
    """Label one row; what fails for this row alone is its outcome.

    Raises
    ------
    MissingExtraError, ModelError, PolicyError
        Models or settings that fail for every row.
    """
    drawn: Row | None = None
    try:
        answered = labeller.answered(row)
        if answered.edge is not row.edge or answered.cloud is not row.cloud:
            drawn = answered
        label = labeller.label(answered)
    except _SET_UP:
        raise
    except Exception as error:  # noqa: BLE001  one bad prompt must not end a long run
        said = str(error) if isinstance(error, ConfrouteError) else f"{type(error).__name__}: {error}"
        return Outcome(id=row.id, error=said, row=drawn)
    return Outcome(id=row.id, label=label, row=drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine:
    """Threads of this process.

    Parameters
    ----------
    concurrency : int
        Prompts at a time. Local models take their forward passes in turn, so that more than 2 help only remote ones.
    """

    concurrency: int = 4

    def __call__(self, labeller: Labeller, rows: Iterable[Row]) -> Outcomes:
        """Label in order."""
        return bounded(lambda row: outcome(labeller, row), rows, concurrency=self.concurrency)


def label_rows(
    rows: Iterable[Row],
    labeller: Labeller,
    out: str | os.PathLike[str],
    *,
    engine: Engine | None = None,
    keep: str | os.PathLike[str] | None = None,
    max_failures: int = 20,
    progress: Callable[[Outcome], None] | None = None,
) -> Summary:
    """Label rows into a file, in their order, going on where an earlier run stopped.

    Parameters
    ----------
    rows : iterable of Row
        Prompts, with or without recorded answers.
    labeller : Labeller
    out : path-like
        JSON lines. Labels that stand there are kept and not made again; a last line that a crash tore is cut off.
    engine : Engine, optional
        `LocalEngine` by default.
    keep : path-like, optional
        Where answered rows go as recorded runs, samples included, before they are labelled: they can be labelled again
        with another threshold, and a run that goes on does not draw them again.
    max_failures : int
        Failures in a row that stop the run: a key that has expired fails every prompt.
    progress : callable, optional
        Told each outcome.

    Returns
    -------
    Summary
        Failed prompts have no line in `out`: the next run tries them again. They are listed in OUT.errors.jsonl, by id.

    Raises
    ------
    LabelRunError
        `max_failures` in a row, or another process writes to `out`.
    RecordError
        `out` holds something else, or labels made with other settings.
    """
    out, errors = Path(out), Path(f"{out}.errors.jsonl")
    kept = None if keep is None else Path(keep)
    try:
        with FileLock(f"{out}.lock", timeout=0):
            summary = Summary()
            done = _done(out, labeller, summary)
            errors.unlink(missing_ok=True)
            pending = _pending(rows, done, _answered(kept, done))
            files = _Files(out=out, errors=errors, keep=kept)
            with closing((engine or LocalEngine())(labeller, pending)) as outcomes:
                _write(outcomes, summary, files, max_failures, progress)
            return summary
    except Timeout as error:
        msg = f"another process labels into {out} (it holds {out}.lock): let it end, or name another file"
        raise LabelRunError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    out: Path
    errors: Path
    keep: Path | None


def _write(
    outcomes: Iterator[Outcome],
    summary: Summary,
    files: _Files,
    max_failures: int,
    progress: Callable[[Outcome], None] | None,
) -> None:
    failures = 0
    for found in outcomes:
        if found.row is not None:
            summary.look(found.row)
            if files.keep is not None:
                append_row(files.keep, found.row)
        if found.label is None:
            failures, summary.failed = failures + 1, summary.failed + 1
            _append(files.errors, {"id": found.id, "error": found.error})
        else:
            failures, summary.labelled = 0, summary.labelled + 1
            summary.add(found.label)
            _append(files.out, found.label.to_dict())
        if progress is not None:
            progress(found)
        if failures >= max_failures:
            msg = f"{failures} prompts in a row failed, the last with: {found.error}; mend it and run again, which goes on from here"
            raise LabelRunError(msg)


def _append(path: Path, data: dict[str, JSON]) -> None:
    # One write: a kill between two would leave a torn line far more often.
    with path.open("ab") as file:
        file.write(json.dumps(data, allow_nan=False).encode("ascii") + b"\n")


def _done(out: Path, labeller: Labeller, summary: Summary) -> set[str]:
    """Ids that `out` holds, all of this labeller's settings."""
    if not out.exists():
        return set()
    cut_torn(out)
    done = set()
    for label in read_labels(out):
        if label.run != labeller.run:
            msg = (
                f"{out} holds labels of other settings ({label.run}, now {labeller.run}): name another file; with --keep "
                "samples can be labelled again without drawing them again"
            )
            raise RecordError(msg)
        summary.add(label)
        done.add(label.id)
    summary.kept = len(done)
    return done


def _answered(keep: Path | None, done: set[str]) -> dict[str, Row]:
    """Rows that were answered but not labelled."""
    if keep is None or not keep.exists():
        return {}
    cut_torn(keep)
    return {row.id: row for row in read_rows(keep) if row.id not in done}


def _pending(rows: Iterable[Row], done: set[str], answered: dict[str, Row]) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            msg = f"the id {row.id!r} stands twice in the input: expected one row an id"
            raise RecordError(msg)
        seen.add(row.id)
        if row.id not in done:
            yield answered.get(row.id, row)
