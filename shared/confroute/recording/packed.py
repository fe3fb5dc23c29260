"""Rows of a long run, held in a small part of the memory that their objects take."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import overload

import numpy as np
import numpy.typing as npt

from confroute.recording.models import Models
from confroute.recording.rows import Row, json_line, row_from_dict
from confroute.types import JSON

# Rows that are packed and unpacked together: more of them take less memory, and longer where one is wanted alone.
_BLOCK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What tells which rows of a run count, without their texts.

    Attributes
    ----------
    id : str
    edge_graded, edge_failed, cloud_graded : bool
    samples : int
    tiers : tuple of str
        Those between edge and cloud.
    comparable : bool
        Whether every draft is graded, or failed, and the cloud is graded.
    fingerprint : int
        Below 2**48: a hash of id, prompt, draft and samples, which grades and signals that are added later do not change.
    """

    id: str
    edge_graded: bool
    edge_failed: bool
    cloud_graded: bool
    samples: int
    tiers: tuple[str, ...] = ()
    comparable: bool = False
    fingerprint: int

    @classmethod
    def of(cls, row: Row) -> Outline:
        """The outline of a row."""
        drafts = (row.edge, *(one.side for one in row.tiers.values()))
        told = all(one.quality is not None or one.error is not None for one in drafts)
        cloud_graded = row.cloud is not None and row.cloud.quality is not None
        return cls(
            id=row.id,
            edge_graded=row.edge.quality is not None,
            edge_failed=row.edge.error is not None,
            cloud_graded=cloud_graded,
            samples=len(row.edge.samples),
            tiers=tuple(row.tiers),
            comparable=told and cloud_graded,
            fingerprint=_fingerprint(row),
        )


def _fingerprint(row: Row) -> int:
    # The numbers too: ids that count the lines and drafts of one letter are alike in many files.
    drawn = [one.text for one in row.edge.samples]
    what = [row.id, row.prompt, row.messages, row.edge.text, row.edge.logprobs, drawn]
    return int.from_bytes(hashlib.sha256(json.dumps(what).encode("ascii")).digest()[:6], "big")


class RowView(Sequence[Row]):
    """Rows that are made when they are asked for.

    Parameters
    ----------
    size : int
        Number of rows.
    made : callable
        The row at a place from 0 to `size` - 1.
    """

    def __init__(self, size: int, made: Callable[[int], Row]) -> None:
        self._size, self._made = size, made

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, at: int | slice) -> Row | tuple[Row, ...]:
        places = range(self._size)[at]
        return self._made(places) if isinstance(places, int) else tuple(map(self._made, places))

    def __iter__(self) -> Iterator[Row]:
        return map(self._made, range(self._size))


class PackedRows(RowView):
    """Rows as compressed JSON lines: for runs whose rows are many, and are gone through a few times.

    Parameters
    ----------
    rows : iterable of Row
        Gone through once.

    Attributes
    ----------
    data_hash : str
        SHA-256 of the rows as JSON lines.
    outlines : tuple of Outline
    models : Models

    Raises
    ------
    RecordError
        A row holds a value that JSON cannot hold.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> packed = PackedRows(Row(id=str(at), edge=Side(text="7")) for at in range(3))
    >>> len(packed), packed[2].id, [row.edge.text for row in packed]
    (3, '2', ['7', '7', '7'])
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        whole, size = hashlib.sha256(), 0
        self._blocks: list[bytes] = []
        outlines: list[Outline] = []
        self.models = Models()
        rows = iter(rows)
        while block := [*islice(rows, _BLOCK)]:
            size += len(block)
            for row in block:
                outlines.append(Outline.of(row))
                self.models.add(row)
            joined = b"".join(map(json_line, block))
            whole.update(joined)
            self._blocks.append(zlib.compress(joined, 1))
        self.data_hash, self.outlines = whole.hexdigest(), tuple(outlines)
        self._open: tuple[int, list[bytes]] = (-1, [])
        super().__init__(size, self._unpacked)

    def _unpacked(self, at: int) -> Row:
        block, place = divmod(at, _BLOCK)
        number, lines = self._open
        if number != block:
            lines = zlib.decompress(self._blocks[block]).splitlines()
            self._open = (block, lines)
        return row_from_dict(json.loads(lines[place]))


def outlines_of(rows: Sequence[Row]) -> Sequence[Outline]:
    """The outline of each row; of packed ones, as it was when they were packed."""
    return rows.outlines if isinstance(rows, PackedRows) else [*map(Outline.of, rows)]


def models_of(rows: Sequence[Row]) -> Models:
    """The models of the rows; of packed ones, as they were when they were packed."""
    if isinstance(rows, PackedRows):
        return rows.models
    found = Models()
    for row in rows:
        found.add(row)
    return found


def hash_of(rows: Sequence[Row]) -> str:
    """SHA-256 of rows as JSON lines."""
    if isinstance(rows, PackedRows):
        return rows.data_hash
    whole = hashlib.sha256()
    for row in rows:
        whole.update(json_line(row))
    return whole.hexdigest()


def picked(rows: Sequence[Row], at: npt.NDArray[np.intp]) -> RowView:
    """The rows at these places, in this order."""
    return RowView(at.size, lambda place: rows[int(at[place])])


def with_columns(
    rows: Sequence[Row],
    signals: Mapping[str, npt.NDArray[np.float64]],
    measured_by: Sequence[Mapping[str, JSON]],
) -> RowView:
    """The rows with their signals from columns, in which NaN stands for None, and with what measured them."""

    def made(at: int) -> Row:
        values = {name: None if (u := column.item(at)) != u else u for name, column in signals.items()}
        return replace(rows[at], signals=values, measured_by=measured_by[at])

    return RowView(len(rows), made)
