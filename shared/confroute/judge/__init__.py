"""Lets models judge answers: one answer from 1 to 10, or two against each other in both orders."""

from __future__ import annotations

from confroute.judge.cache import CacheError, ReplyCache
from confroute.judge.judging import Judge, JudgeUsage, judge_usage
from confroute.judge.protocol import PROTOCOL, UnparsableReplyError, read_score, read_winner
from confroute.judge.verdicts import (
    Comparison,
    Grading,
    Mark,
    Pair,
    Single,
    Vote,
    Winner,
    combine_orders,
    majority,
)

__all__ = [
    "PROTOCOL",
    "CacheError",
    "Comparison",
    "Grading",
    "Judge",
    "JudgeUsage",
    "Mark",
    "Pair",
    "ReplyCache",
    "Single",
    "UnparsableReplyError",
    "Vote",
    "Winner",
    "combine_orders",
    "judge_usage",
    "majority",
    "read_score",
    "read_winner",
]
