"""Evidence to uncertainty, one method a file."""

from confroute.decision import Measurement
from confroute.signals.base import Case, Range, Signal
from confroute.signals.combined import Combined, Head, Member
from confroute.signals.consistency import SelfConsistency
from confroute.signals.curve import Curve
from confroute.signals.ensemble import Ensemble
from confroute.signals.equivalence import (
    Equivalence,
    SameEmbedding,
    SameEntailment,
    SameText,
)
from confroute.signals.lacking import ContextLacks, abstains
from confroute.signals.logprob import TokenLogprob, token_nll
from confroute.signals.mc_dropout import McDropout
from confroute.signals.probe import Probe
from confroute.signals.recorded import Recorded
from confroute.signals.retrieval import RetrievalScore
from confroute.signals.semantic_entropy import SemanticEntropy, semantic_entropy
from confroute.signals.stopping import BetaBinomial
from confroute.signals.support import ContextSupport

__all__ = [
    "BetaBinomial",
    "Case",
    "Combined",
    "ContextLacks",
    "ContextSupport",
    "Curve",
    "Ensemble",
    "Equivalence",
    "Head",
    "McDropout",
    "Measurement",
    "Member",
    "Probe",
    "Range",
    "Recorded",
    "RetrievalScore",
    "SameEmbedding",
    "SameEntailment",
    "SameText",
    "SelfConsistency",
    "SemanticEntropy",
    "Signal",
    "TokenLogprob",
    "abstains",
    "semantic_entropy",
    "token_nll",
]
