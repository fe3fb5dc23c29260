"""The judging protocol as generators: they yield what to ask a judge and receive its replies, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

from confroute.judge.parsing import UnparsableReplyError, read_score, read_winner
from confroute.judge.prompts import pair_messages, single_messages
from confroute.judge.verdicts import Mark, Pair, Single, Vote, Winner
from confroute.types import Message, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a judge said, or why it said nothing.

    Attributes
    ----------
    text : str or None
    error : str or None
        Set where `text` is None.
    usage : Usage
        Tokens billed for it now.
    cached : bool
        Taken from the cache.
    """

    text: str | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    cached: bool = False


Consulting: TypeAlias = Generator[tuple[Message, ...], Reply, T]


def _understood(reply: Reply, read: Callable[[str], T]) -> tuple[T | None, str | None]:
    if reply.text is None:
        return None, reply.error or "no reply"
    try:
        return read(reply.text), None
    except UnparsableReplyError as error:
        return None, str(error)


def vote(pair: Pair, *, judge: str) -> Consulting[Vote]:
    """Ask one judge for a verdict on a pair, in both orders.

    The second order is not asked for where the first failed: it could not make a verdict alone.
    """
    first = yield pair_messages(pair, swapped=False)
    winner, error = _understood(first, read_winner)
    if winner is None:
        return _vote(judge, (None, None), error, first)
    second = yield pair_messages(pair, swapped=True)
    other, error = _understood(second, partial(read_winner, swapped=True))
    return _vote(judge, (winner, other), error, first, second)


def _vote(
    judge: str, orders: tuple[Winner | None, Winner | None], error: str | None, *replies: Reply
) -> Vote:
    return Vote(
        judge=judge,
        orders=orders,
        error=error,
        usage=sum((reply.usage for reply in replies), Usage()),
        calls=len(replies),
        cached=sum(reply.cached for reply in replies),
    )


def mark(single: Single, *, judge: str) -> Consulting[Mark]:
    """Ask one judge for a grade."""
    reply = yield single_messages(single)
    score, error = _understood(reply, read_score)
    return Mark(judge=judge, score=score, error=error, usage=reply.usage, calls=1, cached=int(reply.cached))
