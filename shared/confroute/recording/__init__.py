"""Recorded runs: one JSON object per prompt, with the edge's draft and samples, the cloud's answer and the signals."""

from __future__ import annotations

from confroute.recording.pipeline import record_pipeline
from confroute.recording.rows import (
    Middle,
    RecordedSample,
    RecordError,
    Row,
    Side,
    append_row,
    read_rows,
    row_from_dict,
    write_rows,
)
from confroute.recording.signals import SIGNALS, measured, with_signals
from confroute.signals.option_probability import option_doubt

__all__ = [
    "SIGNALS",
    "Middle",
    "RecordError",
    "RecordedSample",
    "Row",
    "Side",
    "append_row",
    "measured",
    "option_doubt",
    "read_rows",
    "record_pipeline",
    "row_from_dict",
    "with_signals",
    "write_rows",
]
