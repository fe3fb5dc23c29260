"""What is to be labelled: prompts, or recorded rows that hold answers already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from confroute.recording import RecordError, Row, read_rows


def read_inputs(path: str | os.PathLike[str], *, limit: int | None = None) -> Iterator[Row]:
    """Read prompts or recorded rows, line by line.

    Parameters
    ----------
    path : path-like
        JSON lines, plain or gzip: objects of "id", "prompt" (or "question", or "messages"), and if known "reference" (or
        "answers", a list any of which is right); or lines of a recorded run.
    limit : int, optional
        Of the first lines only.

    Raises
    ------
    RecordError
        A line is none of these.
    """
    for row in islice(read_rows(path, recorded=False), limit):
        prompt, reference = row.prompt, row.reference
        asked, answers = row.extra.get("question"), row.extra.get("answers")
        if prompt is None and not row.messages and isinstance(asked, str):
            prompt = asked
        if reference is None and isinstance(answers, list):
            reference = answers
        if prompt is None and not row.messages:
            msg = f"{path}: row {row.id!r} has neither prompt, question nor messages: expected one of them"
            raise RecordError(msg)
        yield replace(row, prompt=prompt, reference=reference)
