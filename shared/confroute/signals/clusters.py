"""Group answers by meaning, with as few comparisons as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from confroute.asks import AskGenerator
from confroute.decision import without_noise
from confroute.signals.answers import normalised
from confroute.signals.equivalence import Equivalence, PairwiseEquivalence, settled_by_text

# Few answers fall into few different numbers of clusters, and a run meets them again and again.
_RECENT = 4096


@dataclass(slots=True)
class Clusters:
    """Groups answers by meaning as they arrive; each answer is compared with the clusters' representatives only.

    A cluster's representative is its first answer, so later answers never regroup earlier ones: that makes early stopping
    exact. An answer with the text, number or option of an earlier one joins its cluster; any other joins the first cluster
    whose representative means the same. Whether answers arrive one by one or together changes how many are compared at a
    time, not the groups. Answers in `given` came in canonical form: see `settled_by_text`.
    """

    question: str = field(repr=False)
    equivalence: Equivalence
    given: set[str] = field(default_factory=set, repr=False)
    labels: list[int] = field(default_factory=list)
    representatives: list[str] = field(default_factory=list, repr=False)
    pairs: int = 0
    _label: dict[str, int] = field(default_factory=dict, repr=False)
    _keys: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, text: str) -> AskGenerator[int]:
        """Assign one answer to a cluster; return the cluster's label."""
        yield from self.extend([text])
        return self.labels[-1]

    def extend(self, texts: Sequence[str]) -> AskGenerator[None]:
        """Assign answers that arrived together."""
        first_of: dict[str, str] = {}
        for text in dict.fromkeys(texts):
            if text not in self._label:
                first_of[text] = self._first_equal(text, [*self._label, *first_of])
        distinct = [text for text, first in first_of.items() if first == text]
        if len(distinct) > 1 and isinstance(self.equivalence, PairwiseEquivalence):
            yield from self._assign_together(self.equivalence, distinct)
        else:
            for text in distinct:
                yield from self._assign(text)
        for text, first in first_of.items():
            self._label[text] = self._label[first]
        self.labels += [self._label[text] for text in texts]

    def _first_equal(self, text: str, earlier: Sequence[str]) -> str:
        """The first earlier text that means the same without asking a model, or the text itself."""
        if text not in self.given:
            first = self._keys.setdefault(normalised(text), text)
            if first != text:
                return first
        return next((other for other in earlier if self._settled(other, text)), text)

    def _assign(self, text: str) -> AskGenerator[None]:
        """Compare one answer with all representatives at once."""
        undecided = [
            label for label, known in enumerate(self.representatives) if self._needs_model(known, text)
        ]
        if undecided:
            candidates = [self.representatives[label] for label in undecided]
            match = yield from self.equivalence.match(self.question, candidates, text)
            self.pairs += match.pairs
            if match.index is not None:
                self._label[text] = undecided[match.index]
                return
        self._start_cluster(text)

    def _assign_together(self, equivalence: PairwiseEquivalence, texts: Sequence[str]) -> AskGenerator[None]:
        """Compare all answers with one representative at a time; an answer that matches it is compared no further.

        Where nothing matches, the next answers are tried as representatives together, which saves model passes. If one of
        them turns out to belong to another cluster, its pairs are wasted. There are never more wasted pairs than reverse
        pairs saved before, so the total is at most both directions of every answer with every earlier representative.
        """
        queue, spare = [*self.representatives, *texts], 0
        while queue:
            candidates, pairs = self._next_candidates(queue, spare)
            joined: dict[str, str] = {}
            if pairs:
                matches = yield from equivalence.match_pairs(self.question, pairs)
                self.pairs += matches.pairs
                joined = {pairs[index][1]: pairs[index][0] for index in matches.indices}
                spare = 0 if joined else spare + 2 * len(pairs) - matches.pairs
            for candidate in candidates:
                if candidate not in joined and candidate not in self._label:
                    self._start_cluster(candidate)
            self._label |= {text: self._label[first] for text, first in joined.items()}
            queue = [text for text in queue[len(candidates) :] if text not in joined]

    def _next_candidates(self, queue: Sequence[str], spare: int) -> tuple[list[str], list[tuple[str, str]]]:
        """The next representative, as many more as cost at most `spare` pairs, and the pairs of all of them."""
        candidates: list[str] = []
        pairs: list[tuple[str, str]] = []
        for at, candidate in enumerate(queue):
            more = [
                (candidate, text)
                for text in queue[at + 1 :]
                if text not in self._label and self._needs_model(candidate, text)
            ]
            if candidates and len(more) > spare:
                break
            spare -= len(more) if candidates else 0
            candidates.append(candidate)
            pairs += more
        return candidates, pairs

    def _needs_model(self, first: str, second: str) -> bool:
        return self._settled(first, second) is None

    def _settled(self, first: str, second: str) -> bool | None:
        return settled_by_text(self.question, first, second, given=self.given)

    def _start_cluster(self, text: str) -> None:
        self._label[text] = len(self.representatives)
        self.representatives.append(text)

    @property
    def counts(self) -> list[int]:
        """Number of answers in each cluster."""
        return [self.labels.count(label) for label in range(len(self.representatives))]


def normalised_entropy(weights: Sequence[float], n: int) -> float:
    """Entropy of clusters in units of log(n): exactly 0 for one cluster, exactly 1 for n equal ones.

    Parameters
    ----------
    weights : sequence of float
        One positive weight per cluster; they need not sum to 1.
    n : int
        Number of clustered answers, 2 or more.

    Examples
    --------
    >>> normalised_entropy([20], 20), normalised_entropy([1, 1, 1], 3)
    (0.0, 1.0)
    """
    return _entropy(tuple(weights), n)


@lru_cache(maxsize=_RECENT)
def _entropy(weights: tuple[float, ...], n: int) -> float:
    if len(weights) == 1:
        return 0.0
    if len(weights) == n and len(set(weights)) == 1:
        return 1.0
    # Their order must not change the sum.
    p = np.asarray(sorted(weights), dtype=np.float64) / math.fsum(weights)
    return without_noise(float(min(1.0, max(0.0, -(p * np.log(p)).sum() / math.log(n)))))


def bounds(counts: Sequence[int], n: int) -> tuple[float, float]:
    """Bound the normalised entropy of `n` answers, given the cluster counts of the first ones.

    The entropy is lowest if all remaining answers join the largest cluster (that completion majorises every other)
    and highest if each of them has a meaning of its own (every other completion merges clusters of that one).

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
