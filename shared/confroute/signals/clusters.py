"""Answers grouped by meaning, with as few comparisons as there can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from confroute.asks import AskGenerator
from confroute.signals.answers import normalised
from confroute.signals.equivalence import Equivalence, OneHead, settled_by_text


@dataclass(slots=True)
class Clusters:
    """Answers grouped by meaning as they come: one cluster an answer, compared with representatives only.

    A cluster's representative is its first answer, so the groups of earlier answers never change when later ones
    come: that is what makes stopping early exact. An answer whose text, number or option is that of an earlier one goes with
    it; any other joins the first cluster whose representative says the same. Whether answers come one by one or together
    changes how many are compared at a time, not the groups.
    """

    question: str
    equivalence: Equivalence
    labels: list[int] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    pairs: int = 0
    _label: dict[str, int] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    def add(self, text: str) -> AskGenerator[int]:
        """Group one answer; return its label."""
        yield from self.extend([text])
        return self.labels[-1]

    def extend(self, texts: Sequence[str]) -> AskGenerator[None]:
        """Group answers that came together."""
        follows: dict[str, str] = {}
        for text in dict.fromkeys(texts):
            if text not in self._label:
                follows[text] = self._like(text, [*self._label, *follows])
        alone = [text for text, first in follows.items() if first == text]
        if len(alone) > 1 and isinstance(self.equivalence, OneHead):
            yield from self._head_by_head(self.equivalence, alone)
        else:
            for text in alone:
                yield from self._one(text)
        for text, first in follows.items():
            self._label[text] = self._label[first]
        self.labels += [self._label[text] for text in texts]

    def _like(self, text: str, earlier: Sequence[str]) -> str:
        """The first earlier text that says the same without a model, or the text itself."""
        first = self._keys.setdefault(normalised(text), text)
        if first != text:
            return first
        return next((known for known in earlier if settled_by_text(self.question, known, text)), text)

    def _one(self, text: str) -> AskGenerator[None]:
        """Compare one answer with all representatives at once."""
        heads = [at for at, head in enumerate(self.heads) if self._unclear(head, text)]
        if heads:
            found = yield from self.equivalence.match(self.question, [self.heads[at] for at in heads], text)
            self.pairs += found.pairs
            if found.index is not None:
                self._label[text] = heads[found.index]
                return
        self._found(text)

    def _head_by_head(self, equivalence: OneHead, texts: Sequence[str]) -> AskGenerator[None]:
        """Compare all answers with one representative at a time: those that match it are compared with no further one.

        Where nothing matches, the next answers are taken for representatives together, which saves passes. Pairs with one that
        is none after all are lost; they are never more than the reverse pairs that were not needed before, so that all pairs
        together are at most both directions of every answer with every representative before it.
        """
        ahead, spare = [*self.heads, *texts], 0
        while ahead:
            tried, pairs = self._next_heads(ahead, spare)
            joined: dict[str, str] = {}
            if pairs:
                found = yield from equivalence.like(self.question, pairs)
                self.pairs += found.pairs
                joined = {pairs[place][1]: pairs[place][0] for place in found.places}
                spare = 0 if joined else spare + 2 * len(pairs) - found.pairs
            for head in tried:
                if head not in joined and head not in self._label:
                    self._found(head)
            self._label |= {text: self._label[head] for text, head in joined.items()}
            ahead = [text for text in ahead[len(tried) :] if text not in joined]

    def _next_heads(self, ahead: Sequence[str], spare: int) -> tuple[list[str], list[tuple[str, str]]]:
        """The next representative and as many more as cost at most `spare` pairs, and the pairs of them all."""
        tried: list[str] = []
        pairs: list[tuple[str, str]] = []
        for at, head in enumerate(ahead):
            more = [
                (head, text)
                for text in ahead[at + 1 :]
                if text not in self._label and self._unclear(head, text)
            ]
            if tried and len(more) > spare:
                break
            spare -= len(more) if tried else 0
            tried.append(head)
            pairs += more
        return tried, pairs

    def _unclear(self, head: str, text: str) -> bool:
        return settled_by_text(self.question, head, text) is None

    def _found(self, text: str) -> None:
        self._label[text] = len(self.heads)
        self.heads.append(text)

    @property
    def counts(self) -> list[int]:
        """Answers in each cluster."""
        return [self.labels.count(label) for label in range(len(self.heads))]


def normalised_entropy(weights: Sequence[float], n: int) -> float:
    """Entropy of clusters in units of log(n): exactly 0 for one cluster, exactly 1 for n equal ones.

    Parameters
    ----------
    weights : sequence of float
        One positive weight per cluster; they need not sum to 1.
    n : int
        Answers that were clustered, 2 or more.

    Examples
    --------
    >>> normalised_entropy([20], 20), normalised_entropy([1, 1, 1], 3)
    (0.0, 1.0)
    """
    if len(weights) == 1:
        return 0.0
    if len(weights) == n and len(set(weights)) == 1:
        return 1.0
    p = np.asarray(weights, dtype=np.float64) / math.fsum(weights)
    return float(min(1.0, max(0.0, -(p * np.log(p)).sum() / math.log(n))))


def bounds(counts: Sequence[int], n: int) -> tuple[float, float]:
    """Least and greatest normalised entropy that `n` answers can end in, given clusters of the first ones.

    The entropy is least if all further answers join the largest cluster (that completion majorises every other)
    and greatest if each is a meaning of its own (every other completion merges clusters of that one).

    Examples
    --------
    >>> low, high = bounds([3], 5)
    >>> low, round(high, 3)
    (0.0, 0.59)
    """
    rest = n - sum(counts)
    largest = max(counts)
    low = [*counts]
    low[low.index(largest)] += rest
    return normalised_entropy(low, n), normalised_entropy([*counts, *[1] * rest], n)
