"""Preference labels: which of two models answers a prompt better, by entropy, correctness or a judge."""

from __future__ import annotations

from confroute.labels.entropy import Estimator, entropy_of, entropy_winner, label_entropy, relative_difference
from confroute.labels.labeller import Labeller, Source, UnlabelledError, quality_of
from confroute.labels.rows import Label, Summary, label_from_dict, read_inputs, read_labels
from confroute.labels.run import Engine, LabelRunError, LocalEngine, Outcome, label_rows, outcome

__all__ = [
    "Engine",
    "Estimator",
    "Label",
    "LabelRunError",
    "Labeller",
    "LocalEngine",
    "Outcome",
    "Source",
    "Summary",
    "UnlabelledError",
    "entropy_of",
    "entropy_winner",
    "label_entropy",
    "label_from_dict",
    "label_rows",
    "outcome",
    "quality_of",
    "read_inputs",
    "read_labels",
    "relative_difference",
]
