"""Evidence to uncertainty, one method a file."""

from confroute.decision import Measurement
from confroute.signals.base import Case, Range, Signal
from confroute.signals.consistency import SelfConsistency
from confroute.signals.equivalence import (
    Equivalence,
    SameEmbedding,
    SameEntailment,
    SameText,
)
from confroute.signals.logprob import TokenLogprob, token_nll
from confroute.signals.semantic_entropy import SemanticEntropy, semantic_entropy

__all__ = [
    "Case",
    "Equivalence",
    "Measurement",
    "Range",
    "SameEmbedding",
    "SameEntailment",
    "SameText",
    "SelfConsistency",
    "SemanticEntropy",
    "Signal",
    "TokenLogprob",
    "semantic_entropy",
    "token_nll",
]
