"""Labels prompts with the model that answers them better, by semantic entropy, correctness or a judge."""

from __future__ import annotations

from confroute.labels.entropy import Estimator, entropy_of, entropy_winner, label_entropy, relative_difference
from confroute.labels.labeller import Labeller, Source, UnlabelledError, quality_of
from confroute.labels.rows import Label, Summary, label_from_dict, read_inputs, read_labels
from confroute.labels.run import Engine, LabelOutcome, LabelRunError, LocalEngine, label_row, label_rows

__all__ = [
    "Engine",
    "Estimator",
    "Label",
    "LabelOutcome",
    "LabelRunError",
    "Labeller",
    "LocalEngine",
    "Source",
    "Summary",
    "UnlabelledError",
    "entropy_of",
    "entropy_winner",
    "label_entropy",
    "label_from_dict",
    "label_row",
    "label_rows",
    "quality_of",
    "read_inputs",
    "read_labels",
    "relative_difference",
]
