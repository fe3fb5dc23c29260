"""The values of judging: pairs and single answers in, votes and marks out. A failed judge is an error, never a verdict."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from confroute.types import JSON, Usage

Winner: TypeAlias = Literal["a", "b", "tie"]
LOWEST, HIGHEST = 1.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to compare.

    Attributes
    ----------
    id, question, a, b : str
        A judge never learns who wrote which answer.
    reference : str or None
        The right answer, if known; judges are told to check both answers against it.
    private : bool
        Whether it must not be sent to a remote judge.
    """

    id: str
    question: str = field(repr=False)
    a: str = field(repr=False)
    b: str = field(repr=False)
    reference: str | None = field(default=None, repr=False)
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One answer to grade; see `Pair` for the attributes."""

    id: str
    question: str = field(repr=False)
    answer: str = field(repr=False)
    reference: str | None = field(default=None, repr=False)
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One judge's verdict on a pair, asked in both orders.

    Attributes
    ----------
    judge : str
        The model's name.
    orders : tuple of two Winner or None
        With answer a first, and with b first; both in terms of a and b. None if that reply failed.
    error : str or None
        Why there is no verdict.
    usage : Usage
        Tokens of the calls made for it; replies from the cache cost none.
    calls, cached : int
        Number of replies, and number of them that came from the cache.
    """

    judge: str
    orders: tuple[Winner | None, Winner | None]
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    cached: int = 0

    @property
    def winner(self) -> Winner | None:
        """The winner on which both orders agree, else a tie; None if either failed."""
        return combine_orders(*self.orders)

    @property
    def consistent(self) -> bool | None:
        """Whether both orders agree; None if either failed."""
        return None if None in self.orders else self.orders[0] == self.orders[1]


def combine_orders(first: Winner | None, second: Winner | None) -> Winner | None:
    """Combine the verdicts of both orders, in terms of a and b: a win counts only if both agree.

    Examples
    --------
    >>> (
    ...     combine_orders("a", "a"),
    ...     combine_orders("a", "b"),
    ...     combine_orders("a", "tie"),
    ...     combine_orders("a", None),
    ...     combine_orders(None, "a"),
    ... )
    ('a', 'tie', 'tie', None, None)
    """
    if first is None or second is None:
        return None
    return first if first == second else "tie"


def majority(votes: Sequence[Winner | None]) -> Winner | None:
    """Combine a panel's votes: the verdict of more than half of those that voted, else a tie.

    None if half of the panel or more gave no vote: the rest would be a selection.

    Examples
    --------
    >>> (
    ...     majority(["a", "a", "tie"]),
    ...     majority(["a", "b", "tie"]),
    ...     majority(["a", None]),
    ...     majority(["a", "a", None]),
    ... )
    ('a', 'tie', None, 'a')
    """
    valid: list[Winner] = [vote for vote in votes if vote is not None]
    if 2 * len(valid) <= len(votes):
        return None
    winner, count = Counter(valid).most_common(1)[0]
    return winner if 2 * count > len(valid) else "tie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A panel's verdict on one pair.

    Attributes
    ----------
    id : str
    votes : tuple of Vote
        One per judge, in the order of the panel.
    words_a, words_b : int
        Lengths of the answers, to detect a preference for long ones.
    """

    id: str
    votes: tuple[Vote, ...]
    words_a: int
    words_b: int

    @property
    def winner(self) -> Winner | None:
        """The panel's verdict by `majority`; None is an error."""
        return majority([vote.winner for vote in self.votes])

    @property
    def dissent(self) -> float | None:
        """Share of the valid votes that differ from the verdict, in [0, 1]."""
        winners = [vote.winner for vote in self.votes if vote.winner is not None]
        winner = self.winner
        return None if winner is None else sum(vote != winner for vote in winners) / len(winners)

    @property
    def error(self) -> str | None:
        """Why there is no verdict."""
        return _errors((vote.judge, vote.error) for vote in self.votes) if self.winner is None else None

    def to_dict(self) -> dict[str, JSON]:
        """Return the comparison as JSON."""
        return {
            "id": self.id,
            "winner": self.winner,
            "dissent": self.dissent,
            "error": self.error,
            "words_a": self.words_a,
            "words_b": self.words_b,
            "votes": [
                {
                    "judge": vote.judge,
                    "winner": vote.winner,
                    "orders": [*vote.orders],
                    "error": vote.error,
                }
                for vote in self.votes
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One judge's grade of an answer; see `Vote` for the other attributes.

    Attributes
    ----------
    score : float in [1, 10] or None
        None is an error.
    """

    judge: str
    score: float | None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """A panel's grade of one answer.

    Attributes
    ----------
    id : str
    marks : tuple of Mark
    words : int
        Length of the answer.
    """

    id: str
    marks: tuple[Mark, ...]
    words: int

    @property
    def score(self) -> float | None:
        """Median score in [1, 10]; None if half of the panel or more failed."""
        scores = [mark.score for mark in self.marks if mark.score is not None]
        return statistics.median(scores) if 2 * len(scores) > len(self.marks) else None

    @property
    def quality(self) -> float | None:
        """The score as a quality in [0, 1]: a score of 1 is 0, one of 10 is 1."""
        score = self.score
        return None if score is None else (score - LOWEST) / (HIGHEST - LOWEST)

    @property
    def spread(self) -> float | None:
        """Difference between the panel's highest and lowest score; 0 means full agreement."""
        scores = [mark.score for mark in self.marks if mark.score is not None]
        return max(scores) - min(scores) if self.score is not None else None

    @property
    def error(self) -> str | None:
        """Why there is no grade."""
        return _errors((mark.judge, mark.error) for mark in self.marks) if self.score is None else None

    def to_dict(self) -> dict[str, JSON]:
        """Return the grading as JSON."""
        marks: list[JSON] = [
            {"judge": mark.judge, "score": mark.score, "error": mark.error} for mark in self.marks
        ]
        return {
            "id": self.id,
            "score": self.score,
            "quality": self.quality,
            "spread": self.spread,
            "error": self.error,
            "words": self.words,
            "marks": marks,
        }


def _errors(errors: Iterable[tuple[str, str | None]]) -> str:
    return "; ".join(f"{judge}: {error}" for judge, error in errors if error is not None)
