"""Answers grouped by meaning, with as few comparisons as there can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from confroute.signals.answers import normalised
from confroute.signals.base import Asking
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

    def add(self, text: str) -> Asking[int]:
        """Group one answer; return its label."""
        yield from self.extend([text])
        return self.labels[-1]

    def extend(self, texts: Sequence[str]) -> Asking[None]:
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

    def _one(self, text: str) -> Asking[None]:
        """Compare one answer with all representatives at once."""
        heads = [at for at, head in enumerate(self.heads) if self._unclear(head, text)]
        if heads:
            found = yield from self.equivalence.match(self.question, [self.heads[at] for at in heads], text)
            self.pairs += found.pairs
            if found.index is not None:
                self._label[text] = heads[found.index]
                return
        self._found(text)

    def _head_by_head(self, equivalence: OneHead, texts: Sequence[str]) -> Asking[None]:
        """Compare all answers with one representative at a time: those that match it are compared with no further one."""
        left, at = list(texts), 0
        while left:
            if at == len(self.heads):
                self._found(left.pop(0))
            unclear = [text for text in left if self._unclear(self.heads[at], text)]
            if unclear:
                found = yield from equivalence.like(self.question, self.heads[at], unclear)
                self.pairs += found.pairs
                self._label |= {unclear[place]: at for place in found.places}
                left = [text for text in left if text not in self._label]
            at += 1

    def _unclear(self, head: str, text: str) -> bool:
        return settled_by_text(self.question, head, text) is None

    def _found(self, text: str) -> None:
        self._label[text] = len(self.heads)
        self.heads.append(text)

    @property
    def counts(self) -> list[int]:
        """Answers in each cluster."""
        return [self.labels.count(label) for label in range(len(self.heads))]
