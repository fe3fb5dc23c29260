"""Signals: each turns evidence about a draft into one number, its uncertainty."""
# ruff: noqa: I001  The order of these imports is that of the registry, so of all lists of signals: by cost.

from confroute.decision import Measurement
from confroute.signals.base import Case, Range, Signal

# The draft alone.
from confroute.signals.logprob import TokenLogprob, token_nll
from confroute.signals.token_entropy import TokenEntropy
from confroute.signals.token_margin import TokenMargin
from confroute.signals.option_probability import OptionProbability

# What was retrieved for it.
from confroute.signals.retrieval import RetrievalScore
from confroute.signals.abstention import ContextLacks, abstains
from confroute.signals.support import ContextSupport

# What an agent's tools brought.
from confroute.signals.tool_trouble import ToolTrouble

# Samples.
from confroute.signals.consistency import SelfConsistency
from confroute.signals.semantic_entropy import SemanticEntropy, semantic_entropy
from confroute.signals.coverage_entropy import CoverageEntropy
from confroute.signals.graph import Degree, Eccentricity, EigenvalueSum, KernelEntropy
from confroute.signals.alphabet_size import AlphabetSize
from confroute.signals.cocoa import Cocoa

# A further call, the edge's weights, further models.
from confroute.signals.self_assessment import PTrue, Verbalised
from confroute.signals.probe import Probe
from confroute.signals.mc_dropout import McDropout
from confroute.signals.ensemble import Ensemble

# Made by a fit.
from confroute.signals.combined import Combined, LogisticCalibrator, Member
from confroute.signals.recorded import Recorded

# What signals are made of.
from confroute.signals.equivalence import Equivalence, SameEmbedding, SameEntailment, SameText
from confroute.signals.similarity import EmbeddingCosine, EntailmentDegree, Similarity, WordOverlap
from confroute.signals.stopping import BetaBinomial, EwensMixture
from confroute.stats.isotonic import MonotoneInterpolator

__all__ = [
    "AlphabetSize",
    "BetaBinomial",
    "Case",
    "Cocoa",
    "Combined",
    "ContextLacks",
    "ContextSupport",
    "CoverageEntropy",
    "Degree",
    "Eccentricity",
    "EigenvalueSum",
    "EmbeddingCosine",
    "Ensemble",
    "EntailmentDegree",
    "Equivalence",
    "EwensMixture",
    "KernelEntropy",
    "LogisticCalibrator",
    "McDropout",
    "Measurement",
    "Member",
    "MonotoneInterpolator",
    "OptionProbability",
    "PTrue",
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
    "Similarity",
    "TokenEntropy",
    "TokenLogprob",
    "TokenMargin",
    "ToolTrouble",
    "Verbalised",
    "WordOverlap",
    "abstains",
    "semantic_entropy",
    "token_nll",
]
