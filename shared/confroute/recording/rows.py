"""Rows of a recorded run, and the files they stand in.

The format, one JSON object a line (unknown keys, anywhere, are kept and written back)::

    {"id": "...", "dataset": "...", "prompt": "..." | null, "messages": [...] | null, "reference": ... | null,
     "edge":  {"model": "...", "text": "...", "logprobs": [..] | null, "tokens": [..] | null, "answer": ... | null,
               "quality": 0..1 | null, "usage": {"input_tokens": n, "output_tokens": n} | null,
               "latency_s": x | null, "cost_usd": x | null,
               "samples": [{"text": "...", "logprobs": [..] | null, "answer": ... | null}], "error": "..." | null},
     "cloud": {the same, without samples} | null,
     "signals": {NAME: uncertainty}}
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn, cast

from confroute.recording import _fields as read
from confroute.recording._fields import RecordError
from confroute.recording._types import RecordedSample, Row, Side, billed
from confroute.types import JSON

__all__ = [
    "RecordError",
    "RecordedSample",
    "Row",
    "Side",
    "append_row",
    "read_rows",
    "row_from_dict",
    "write_rows",
]

_SAMPLE = ("text", "logprobs", "answer")
_SIDE = (
    *("model", "text", "logprobs", "tokens", "answer", "quality", "usage", "latency_s", "cost_usd"),
    *("samples", "error"),
)
_ROW = ("id", "dataset", "prompt", "messages", "reference", "edge", "cloud", "signals")
_GZIP = b"\x1f\x8b"


def row_from_dict(data: JSON) -> Row:
    """Read one row from its JSON form.

    Raises
    ------
    RecordError
        A field that is missing ("id", "edge") or not what the format says.

    Examples
    --------
    >>> row = row_from_dict({"id": "a", "edge": {"text": "7", "quality": 1.0}, "mine": [1]})
    >>> row.edge.quality, row.cloud, row.to_dict()["mine"]
    (1.0, None, [1])
    """
    row = read.fields(data, "the row")
    cloud = read.optional_fields(row.get("cloud"), "cloud")
    messages = row.get("messages")
    signals = read.optional_fields(row.get("signals"), "signals") or {}
    return Row(
        id=read.text(row.get("id"), "id"),
        dataset=read.optional_text(row.get("dataset"), "dataset") or "",
        prompt=read.optional_text(row.get("prompt"), "prompt"),
        messages=None if messages is None else tuple(_messages(messages)),
        reference=row.get("reference"),
        edge=_side(read.fields(row.get("edge"), "edge"), "edge"),
        cloud=None if cloud is None else _side(cloud, "cloud"),
        signals={name: read.optional_number(value, f"signals.{name}") for name, value in signals.items()},
        extra=read.unknown(row, _ROW),
    )


def _messages(value: JSON) -> Iterator[Mapping[str, JSON]]:
    for at, message in enumerate(read.items(value, "messages")):
        yield read.fields(message, f"messages[{at}]")


def _side(data: read.Fields, where: str) -> Side:
    usage = read.optional_fields(data.get("usage"), f"{where}.usage")
    billed(usage)
    samples = read.items(data.get("samples"), f"{where}.samples")
    return Side(
        model=read.optional_text(data.get("model"), f"{where}.model"),
        text=read.optional_text(data.get("text"), f"{where}.text"),
        logprobs=read.optional_numbers(data.get("logprobs"), f"{where}.logprobs"),
        tokens=read.optional_texts(data.get("tokens"), f"{where}.tokens"),
        answer=data.get("answer"),
        quality=read.optional_number(data.get("quality"), f"{where}.quality", low=0.0, high=1.0),
        usage=usage,
        latency_s=read.optional_number(data.get("latency_s"), f"{where}.latency_s"),
        cost_usd=read.optional_number(data.get("cost_usd"), f"{where}.cost_usd"),
        samples=tuple(_sample(sample, f"{where}.samples[{at}]") for at, sample in enumerate(samples)),
        error=read.optional_text(data.get("error"), f"{where}.error"),
        extra=read.unknown(data, _SIDE),
    )


def _sample(value: JSON, where: str) -> RecordedSample:
    data = read.fields(value, where)
    return RecordedSample(
        text=read.text(data.get("text"), f"{where}.text"),
        logprobs=read.optional_numbers(data.get("logprobs"), f"{where}.logprobs"),
        answer=data.get("answer"),
        extra=read.unknown(data, _SAMPLE),
    )


def _no_number(constant: str) -> NoReturn:
    msg = f"{constant} is no JSON number: expected a finite number or null"
    raise RecordError(msg)


def read_rows(path: str | os.PathLike[str], *, recorded: bool = True) -> Iterator[Row]:
    """Read a recorded run, row by row, without holding all of it.

    Parameters
    ----------
    path : path-like
        JSON lines in UTF-8, plain or gzip (recognised by content, not by name). Empty lines are skipped.
    recorded : bool
        False also takes rows without "edge": prompts that are still to be answered.

    Yields
    ------
    Row

    Raises
    ------
    RecordError
        The file cannot be read, or a line is no row; the message holds the line's number, from 1.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
    >>> append_row(path, Row(id="a", edge=Side(text="7")))
    >>> [row.id for row in read_rows(path)]
    ['a']
    """
    at = 0
    try:
        with _opened(Path(path)) as lines:
            for line in lines:
                at += 1
                if line.strip():
                    data = json.loads(line, parse_constant=_no_number)
                    yield row_from_dict(
                        data if recorded or not isinstance(data, dict) else {"edge": {}, **data}
                    )
    except RecordError as error:
        msg = f"{path}, line {at}: {error}"
        raise RecordError(msg) from error
    except ValueError as error:
        msg = f"{path}, line {at}: {error}; expected one JSON object in UTF-8"
        raise RecordError(msg) from error
    except FileNotFoundError as error:
        msg = f"{path}: no such file"
        raise RecordError(msg) from error
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path}, after line {at}: {error}; expected a readable file of JSON lines, plain or gzip"
        raise RecordError(msg) from error


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _line(row: Row) -> bytes:
    try:
        # Escaped to ASCII: a model may write half a surrogate pair, which UTF-8 refuses.
        return json.dumps(row.to_dict(), allow_nan=False).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        msg = f"row {row.id!r} cannot be written as JSON: {error}; expected strings, finite numbers, lists and objects"
        raise RecordError(msg) from error


def append_row(path: str | os.PathLike[str], row: Row) -> None:
    """Add one row at the end of a file, which is created if it is not there.

    Parameters
    ----------
    path : path-like
        A name that ends in ".gz" gets one gzip member a row: far larger than `write_rows` makes it.
    row : Row

    Raises
    ------
    RecordError
        The row holds what JSON cannot (an infinity); nothing is written.
    """
    path, line = Path(path), _line(row)
    # One write: a kill between two would leave a torn line far more often.
    with path.open("ab") as file:
        file.write(gzip.compress(line, mtime=0) if path.suffix == ".gz" else line)


def write_rows(path: str | os.PathLike[str], rows: Iterable[Row]) -> int:
    """Write a whole run; a file of that name is replaced only once all rows are written.

    Parameters
    ----------
    path : path-like
        Packed with gzip where the name ends in ".gz". Equal rows give equal bytes.
    rows : iterable of Row
        May be `read_rows` of the same path.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    RecordError
        A row holds what JSON cannot (an infinity); `path` stays as it was.
    """
    path, count = Path(path), 0
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, _packing(file, packed=path.suffix == ".gz") as out:
            for row in rows:
                out.write(_line(row))
                count += 1
        # A temporary file is readable by its owner only, which the run need not be.
        unfinished.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


@contextmanager
def _packing(file: IO[bytes], *, packed: bool) -> Iterator[IO[bytes]]:
    if not packed:
        yield file
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as out:
        yield cast("IO[bytes]", out)
