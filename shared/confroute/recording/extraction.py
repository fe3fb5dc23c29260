"""One way of reading answers: in a recorded run, in the policy that is fitted to it, and on new calls.

A promise holds only where new calls' answers are compared as those were that it was made on. So a run says by which kind it
was read, the fitted signals have that kind, and rows that were read otherwise are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast, get_args

from confroute.errors import CalibrationError
from confroute.reading import shown_ids
from confroute.recording.rows import KIND, Middle, RecordedSample, RecordError, Row, Side, comparable
from confroute.registry import columns
from confroute.signals import Combined, Signal
from confroute.signals.answers import Kind, final_answer
from confroute.types import JSON

# Fields of signals that compare answers: all that draw samples do.
_COMPARES = frozenset(("kind", "n"))
Drafted = TypeVar("Drafted", Row, Middle)


def kind_of_row(row: Row) -> Kind | None:
    """The kind that the answers of a row were read by; None where the recorder did not say.

    Raises
    ------
    RecordError
        A kind that is not known.
    """
    kind = row.extra.get(KIND)
    if kind is not None and kind not in get_args(Kind):
        msg = f"row {row.id!r} has {KIND} {kind!r}: expected one of {', '.join(get_args(Kind))}"
        raise RecordError(msg)
    return cast("Kind | None", kind)


def with_kind(signal: Signal, kind: Kind) -> Signal:
    """The signal, comparing answers of this kind; as it is where it does not compare them by kind."""
    return replace(cast("Any", signal), kind=kind) if hasattr(signal, "kind") else signal


def check_extraction(signals: Iterable[Signal], rows: Sequence[Row]) -> None:
    """Refuse rows whose answers were read otherwise than these signals read them on new calls.

    Raises
    ------
    CalibrationError
        The rows were recorded with another kind, or the recorded answers are not those that are read from the recorded
        texts; with their ids.
    """
    for kind in dict.fromkeys(_kinds(signals)):
        wrong = [row.id for row in rows if not _read_alike(row, kind)]
        if wrong:
            msg = (
                f"the answers of {len(wrong)} of {len(rows)} rows were read differently from a new call's (kind {kind!r}): {shown_ids(wrong)}; "
                f"record them again, or read the recorded texts again with kind={kind!r} (fit --kind {kind})"
            )
            raise CalibrationError(msg)


def _kinds(signals: Iterable[Signal]) -> Iterator[Kind]:
    for signal in signals:
        if isinstance(signal, Combined):
            yield from _kinds(member.signal for member in signal.members)
        elif any(hasattr(signal, field) for field in _COMPARES):
            yield getattr(signal, "kind", "auto")


def _read_alike(row: Row, kind: Kind) -> bool:
    recorded = kind_of_row(row)
    if recorded is not None:
        return recorded == kind
    if not row.edge.samples or row.edge.text is None:
        return True
    answers = [(row.edge.text, row.edge.answer), *((one.text, one.answer) for one in row.edge.samples)]
    return all(
        answer is None
        or not text.strip()
        or comparable(answer) == final_answer(text, row.question, kind=kind)
        for text, answer in answers
    )


def read_anew(row: Row, kind: Kind) -> Row:
    """The row with the answers in its texts read by this kind, and without the signals that compared the old ones.

    Answers whose text was not recorded stay.
    """
    return replace(
        _without_compared(row),
        edge=_side(row.edge, row.question, kind),
        tiers={
            name: replace(_without_compared(one), side=_side(one.side, row.question, kind))
            for name, one in row.tiers.items()
        },
        cloud=None if row.cloud is None else _side(row.cloud, row.question, kind),
        extra={**row.extra, KIND: kind},
    )


def _without_compared(drafted: Drafted) -> Drafted:
    """Without the signals that compared answers."""
    compared = {name for name in drafted.signals if _compares(name, drafted.measured_by.get(name))}
    kept = {name: value for name, value in drafted.signals.items() if name not in compared}
    settings = {name: plain for name, plain in drafted.measured_by.items() if name not in compared}
    return replace(drafted, signals=kept, measured_by=settings)


def _compares(name: str, measured_by: JSON) -> bool:
    """Whether a column was measured by a signal that compares answers."""
    if isinstance(measured_by, dict):
        return not _COMPARES.isdisjoint(measured_by)
    known = columns().get(name)
    return known is not None and any(hasattr(known.known, field) for field in _COMPARES)


def _side(side: Side, question: str, kind: Kind) -> Side:
    samples = tuple(_sample(one, question, kind) for one in side.samples)
    if not (side.text or "").strip():
        return replace(side, samples=samples)
    return replace(side, answer=final_answer(side.text or "", question, kind=kind), samples=samples)


def _sample(sample: RecordedSample, question: str, kind: Kind) -> RecordedSample:
    if not sample.text.strip():
        return sample
    return replace(sample, answer=final_answer(sample.text, question, kind=kind))
