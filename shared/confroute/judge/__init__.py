"""Judging answers by models: one answer from 1 to 10, or two against each other in both orders."""

from __future__ import annotations

from confroute.judge.cache import CacheError, ReplyCache
from confroute.judge.judging import Judge, Spent, spent
from confroute.judge.protocol import PROTOCOL, UnparsableReplyError, read_score, read_winner
from confroute.judge.verdicts import Comparison, Grading, Mark, Pair, Single, Vote, Winner, agreed, majority

__all__ = [
    "PROTOCOL",
    "CacheError",
    "Comparison",
    "Grading",
    "Judge",
    "Mark",
    "Pair",
    "ReplyCache",
    "Single",
    "Spent",
    "UnparsableReplyError",
    "Vote",
    "Winner",
    "agreed",
    "majority",
    "read_score",
    "read_winner",
    "spent",
]
