"""The answer that most of a draft and its samples give: what was drawn to judge the draft may be better than it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from confroute.signals.answers import answer_of, normalised
from confroute.types import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """The winner of a vote.

    Attributes
    ----------
    answer : Generation
        The draft where its answer is among the most frequent ones, else the first sample that gave the most frequent one.
    votes, of : int
        Answers that say the same as it, itself included, and answers that voted.
    """

    answer: Generation
    votes: int
    of: int

    @property
    def reason(self) -> str:
        """What a decision says of a sample that won."""
        return f"a sample is returned in its place: {self.votes} of {self.of} answers, not the draft's, say the same"


def majority(question: str, draft: Generation, samples: Iterable[Generation]) -> Majority:
    """Let a draft and its samples vote: Wang et al., self-consistency (arXiv 2203.11171).

    Parameters
    ----------
    question : str
    draft : Generation
    samples : iterable of Generation
        Those with a flaw, cut off at the length limit or without text do not vote: none of them could be returned.

    Notes
    -----
    Answers are the same if their final numbers, options or short answers are, else if their normalised texts are. Long texts
    mostly all differ, and the draft stays.

    Examples
    --------
    >>> said = [Generation(text=text) for text in ("So 7.", "8 legs", "It is 8")]
    >>> found = majority("How many legs?", said[0], said[1:])
    >>> found.answer.text, found.votes, found.of
    ('8 legs', 2, 3)
    """
    answers = [draft, *(sample for sample in samples if _usable(sample))]
    groups: dict[str, list[Generation]] = {}
    for answer in answers:
        key = answer_of(answer, question)
        groups.setdefault(normalised(answer.text) if key is None else key, []).append(answer)
    # The first of the largest groups, so the draft's where it is one of them.
    most = max(groups.values(), key=len)
    return Majority(answer=most[0], votes=len(most), of=len(answers))


def replacement(question: str, draft: Generation, pools: Iterable[Iterable[Generation]]) -> Majority | None:
    """The winner where it is not the draft; `pools` are the samples of each temperature."""
    found = majority(question, draft, chain.from_iterable(pools))
    return None if found.answer is draft else found


def _usable(sample: Generation) -> bool:
    said = bool(sample.text.strip()) or sample.answer is not None
    return said and sample.flaw is None and sample.finish != "length"
