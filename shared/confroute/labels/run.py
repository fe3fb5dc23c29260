"""Runs the label pipeline over many prompts: each result is written at once, and a stopped run resumes where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from confroute.concurrency import bounded
from confroute.errors import ConfrouteError, MissingExtraError, ModelError, PolicyError
from confroute.labels.labeller import Labeller
from confroute.labels.rows import Label, Summary, read_labels
from confroute.recording import RecordError, Row, read_rows
from confroute.recording.going_on import RunFile, alone, whole_lines
from confroute.types import JSON
from confroute.writing import Appending

Outcomes: TypeAlias = "Generator[LabelOutcome, None, None]"
_SET_UP = (MissingExtraError, ModelError, PolicyError)


class LabelRunError(ConfrouteError, RuntimeError):
    """A run stopped: too many failures in a row, or another process is writing the same file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOutcome:
    """The outcome of labelling one prompt.

    Attributes
    ----------
    id : str
    label : Label or None
    error : str or None
        Why there is no label.
    row : Row or None
        The row with both models' answers, if this run drew any of them.
    """

    id: str
    label: Label | None = None
    error: str | None = None
    row: Row | None = None


class Engine(Protocol):
    """Labels rows, and yields the outcomes in the order of the rows."""

    def __call__(self, labeller: Labeller, rows: Iterable[Row]) -> Outcomes:
        """Label `rows`, which are read lazily."""
        ...


def label_row(labeller: Labeller, row: Row) -> LabelOutcome:
    """Label one row; an error that concerns this row alone becomes its outcome.

    Raises
    ------
    MissingExtraError, ModelError, PolicyError
        A model or setting cannot work for any row.
    """
    new_row: Row | None = None
    try:
        answers = labeller.with_answers(row)
        if answers.edge is not row.edge or answers.cloud is not row.cloud:
            new_row = answers
        label = labeller.label(answers)
    except _SET_UP:
        raise
    except Exception as error:  # noqa: BLE001  one bad prompt must not end a long run
        reason = str(error) if isinstance(error, ConfrouteError) else f"{type(error).__name__}: {error}"
        return LabelOutcome(id=row.id, error=reason, row=new_row)
    return LabelOutcome(id=row.id, label=label, row=new_row)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine:
    """Labels in threads of this process.

    Parameters
    ----------
    concurrency : int
        Number of prompts at a time. Local models run one forward pass at a time, so that more than 2 help only remote
        ones.
    """

    concurrency: int = 4

    def __call__(self, labeller: Labeller, rows: Iterable[Row]) -> Outcomes:
        """Label the rows, and yield the outcomes in their order."""
        return bounded(lambda row: label_row(labeller, row), rows, concurrency=self.concurrency)


def label_rows(
    rows: Iterable[Row],
    labeller: Labeller,
    out: str | os.PathLike[str],
    *,
    engine: Engine | None = None,
    keep: str | os.PathLike[str] | None = None,
    max_failures: int = 20,
    progress: Callable[[LabelOutcome], None] | None = None,
) -> Summary:
    """Label rows into a file, in their order, resuming where an earlier run stopped.

    Parameters
    ----------
    rows : iterable of Row
        Prompts, with or without recorded answers.
    labeller : Labeller
    out : path-like
        JSON lines. Labels in it are kept and not made again; an incomplete last line from a crash is removed.
    engine : Engine, optional
        `LocalEngine` by default.
    keep : path-like, optional
        File to which rows with all their samples are written as a recorded run, before they are labelled. They can then
        be labelled again with another threshold, and a resumed run does not draw them again.
    max_failures : int
        Number of failures in a row that stops the run: with an expired key, for example, every prompt fails.
    progress : callable, optional
        Called with each outcome.

    Returns
    -------
    Summary
        Failed prompts have no line in `out`, so that the next run tries them again; OUT.errors.jsonl lists their ids.

    Raises
    ------
    LabelRunError
        `max_failures` failures in a row, or another process writes to `out`.
    RecordError
        `out` is not a file of labels, or its labels were made with other settings.
    """
    out, errors = Path(out), Path(f"{out}.errors.jsonl")
    kept = None if keep is None else Path(keep)
    with ExitStack() as locks:
        for file in (out,) if kept is None else (out, kept):
            locks.enter_context(alone(file, LabelRunError))
        summary = Summary()
        done = _done(out, labeller, summary)
        run = None if kept is None else RunFile(kept)
        errors.unlink(missing_ok=True)
        pending = _pending(rows, done, _unlabelled(kept, done))
        files = _Files(out=out, errors=errors, keep=run)
        with closing((engine or LocalEngine())(labeller, pending)) as outcomes:
            _write(outcomes, summary, files, max_failures, progress)
        return summary


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    out: Path
    errors: Path
    keep: RunFile | None


def _write(
    outcomes: Iterator[LabelOutcome],
    summary: Summary,
    files: _Files,
    max_failures: int,
    progress: Callable[[LabelOutcome], None] | None,
) -> None:
    failures = 0
    for outcome in outcomes:
        if outcome.row is not None:
            summary.add_samples(outcome.row)
            if files.keep is not None:
                files.keep.put(outcome.row)
        if outcome.label is None:
            failures, summary.failed = failures + 1, summary.failed + 1
            _append(files.errors, {"id": outcome.id, "error": outcome.error})
        else:
            failures, summary.labelled = 0, summary.labelled + 1
            summary.add(outcome.label)
            _append(files.out, outcome.label.to_dict())
        if progress is not None:
            progress(outcome)
        if failures >= max_failures:
            msg = f"{failures} prompts in a row failed, the last with: {outcome.error}; fix this and run again to resume"
            raise LabelRunError(msg)


def _append(path: Path, data: dict[str, JSON]) -> None:
    with Appending(path) as file:
        file.write(json.dumps(data, allow_nan=False).encode("ascii") + b"\n")


def _done(out: Path, labeller: Labeller, summary: Summary) -> set[str]:
    """Ids of the labels in `out`, which must have this labeller's settings; they are counted in the summary."""
    if not out.exists():
        return set()
    return whole_lines(out, lambda torn: _ids(out, labeller, summary, torn))


def _ids(out: Path, labeller: Labeller, summary: Summary, torn: Callable[[int], None]) -> set[str]:
    done = set()
    for label in read_labels(out, torn=torn):
        if label.run != labeller.run:
            msg = (
                f"{out} holds labels made with other settings (run {label.run}, now {labeller.run}): name another file; with "
                "--keep the same samples can be labelled again"
            )
            raise RecordError(msg)
        summary.add(label)
        done.add(label.id)
    summary.kept = len(done)
    return done


def _unlabelled(keep: Path | None, done: set[str]) -> dict[str, Row]:
    """Rows in `keep` that have answers but no label yet, by id."""
    if keep is None or not keep.exists():
        return {}
    return {row.id: row for row in read_rows(keep) if row.id not in done}


def _pending(rows: Iterable[Row], done: set[str], unlabelled: dict[str, Row]) -> Iterator[Row]:
    """Yield the rows still to label, with the answers that they have already."""
    ids: set[str] = set()
    for row in rows:
        if row.id in ids:
            msg = f"the id {row.id!r} occurs twice in the input: expected one row per id"
            raise RecordError(msg)
        ids.add(row.id)
        if row.id not in done:
            yield unlabelled.get(row.id, row)
