"""Heads predict from the prompt alone which model will answer better, and how uncertain that prediction is."""

from confroute.heads.base import Estimate, Head, TextHead
from confroute.heads.encoder import FEATURES, Encoder, EncoderId, encoder, prompt_features
from confroute.heads.files import load_head, save_head
from confroute.heads.gaussian_process import GaussianProcess
from confroute.heads.knn import NearestNeighbours
from confroute.heads.linear import Ridge
from confroute.heads.networks import MLP, MatrixFactorisation
from confroute.heads.ranking import SimilarityRanking, tiers_of
from confroute.heads.tuning import tune_encoder
from confroute.heads.word_problems import WORD_PROBLEM_FEATURES, word_problem_features
from confroute.heads.words import WordRidge

__all__ = [
    "FEATURES",
    "MLP",
    "WORD_PROBLEM_FEATURES",
    "Encoder",
    "EncoderId",
    "Estimate",
    "GaussianProcess",
    "Head",
    "MatrixFactorisation",
    "NearestNeighbours",
    "Ridge",
    "SimilarityRanking",
    "TextHead",
    "WordRidge",
    "encoder",
    "load_head",
    "prompt_features",
    "save_head",
    "tiers_of",
    "tune_encoder",
    "word_problem_features",
]
