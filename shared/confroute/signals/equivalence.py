"""Whether two answers to one question say the same.

An equivalence is a small frozen object; its question to a model is an ask like any other, so that it, too, does
no I/O. Equal normalised texts are the same, and answers whose final numbers or options differ are not, before any
model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.asks import Embed, Entails, Evidence
from confroute.errors import PolicyError
from confroute.registry import register
from confroute.signals.answers import final_answer, kind_of, normalised
from confroute.signals.base import Asking

Embedding: TypeAlias = "str | Callable[[Sequence[str]], npt.ArrayLike]"
DEFAULT_EMBEDDING = "all-minilm-l6-v2"
_NEGATION = re.compile(r"\b(?:not|no|never|none|neither|nor|cannot|without)\b|n't\b", re.IGNORECASE)
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The first of several answers that another one equals, and how many pairs a model compared for it."""

    index: int | None = None
    pairs: int = 0


@runtime_checkable
class Equivalence(Protocol):
    """Finds out which of several answers, if any, another one equals, where their texts do not tell."""

    def match(self, question: str, heads: Sequence[str], text: str) -> Asking[Match]:
        """Yield what it needs to know; return the first of `heads` that means the same as `text`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Likes:
    """Which of several pairs of answers, by place, say the same, and how many pairs a model compared for it."""

    places: tuple[int, ...]
    pairs: int


@runtime_checkable
class OneHead(Protocol):
    """An equivalence that can also compare many pairs at a time, for answers that came together."""

    def like(self, question: str, pairs: Sequence[tuple[str, str]]) -> Asking[Likes]:
        """Yield what it needs to know; return which pairs (representative, answer) mean the same, as `match` would of each.

        Pairs come in order of their representatives. An answer goes with the first that it means the same as, and is from then on
        neither compared with another nor a representative itself, whatever the other pairs say.
        """
        ...


def settled_by_text(question: str, first: str, second: str) -> bool | None:
    """True or False where the texts alone decide, None where a model must be asked.

    Examples
    --------
    >>> (
    ...     settled_by_text("Capital of France?", "Paris.", "paris"),
    ...     settled_by_text("2+2?", "It is 4", "It is 5"),
    ... )
    (True, False)
    >>> settled_by_text("Who wrote it?", "It was Ada.", "Ada Lovelace did.") is None
    True
    """
    if normalised(first) == normalised(second):
        return True
    if kind_of(question) != "text":
        a, b = final_answer(first, question), final_answer(second, question)
        if a is not None and b is not None:
            return a == b
    # Embeddings hardly see a changed digit or a negation, which change everything.
    if sorted(_DIGITS.findall(first)) != sorted(_DIGITS.findall(second)):
        return False
    if bool(_NEGATION.search(first)) != bool(_NEGATION.search(second)):
        return False
    return None


@register(kind="equivalence")
@dataclass(frozen=True, slots=True, kw_only=True)
class SameText:
    """Only answers whose texts, numbers or options agree are the same; needs no model.

    Right for short answers. Of free text it says that every wording is another meaning, which escalates too much
    and never too little.
    """

    def match(self, question: str, heads: Sequence[str], text: str) -> Asking[Match]:
        """Return no match: texts that agree were recognised before."""
        yield from ()
        return Match()


@register(kind="equivalence")
@dataclass(frozen=True, slots=True, kw_only=True)
class SameEmbedding:
    """Answers are the same if the cosine of their embeddings, question prepended, reaches `cosine`.

    Parameters
    ----------
    model : str or callable
        A catalogue name or a folder of an embedding model, or a function from a list of texts to one vector each. A policy
        file holds functions that are registered (`confroute.policy.register`).
    cosine : float in [-1, 1]
        With the question in both texts every cosine is high: two answers to one short question that share nothing
        still reach about 0.6.

    Raises
    ------
    PolicyError
        `cosine` outside [-1, 1], or a model that is neither a name nor a function.
    """

    model: Embedding = DEFAULT_EMBEDDING
    cosine: float = 0.9

    def __post_init__(self) -> None:
        check_embedding(self.model)
        if not -1 <= self.cosine <= 1:
            msg = f"cosine is {self.cosine}: expected a number in [-1, 1]"
            raise PolicyError(msg)

    def match(self, question: str, heads: Sequence[str], text: str) -> Asking[Match]:
        """Compare embeddings, all in one ask."""
        texts = tuple(f"{question} {answer}" for answer in (text, *heads))
        evidence = yield embedding_of(texts, self.model)
        vectors = numbers_of(evidence)
        near = np.flatnonzero(vectors[1:] @ vectors[0] >= self.cosine)
        return Match(index=int(near[0]) if near.size else None, pairs=len(heads))


@register(kind="equivalence")
@dataclass(frozen=True, slots=True, kw_only=True)
class SameEntailment:
    """Answers are the same if each entails the other, question prepended: Kuhn et al. (arXiv 2302.09664).

    Parameters
    ----------
    model : str
        A folder or hub name of a natural-language-inference model. Which of its labels is "entailment" is read
        from its configuration.
    probability : float in (0, 1)
        Least probability of entailment, in both directions.

    Notes
    -----
    The second direction is asked only if the first holds. Both are required: of "Paris" and "Paris and London"
    one entails the other, and they are different answers.
    """

    model: str
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            msg = f"probability is {self.probability}: expected a number between 0 and 1"
            raise PolicyError(msg)

    def match(self, question: str, heads: Sequence[str], text: str) -> Asking[Match]:
        """Ask whether each head entails the text, in one ask, then for those that do, whether it entails them."""
        this = f"{question} {text}"
        forward = tuple((f"{question} {head}", this) for head in heads)
        evidence = yield Entails(pairs=forward, model=self.model)
        pairs = len(forward)
        for index in np.flatnonzero(numbers_of(evidence) >= self.probability):
            evidence = yield Entails(pairs=((this, forward[index][0]),), model=self.model)
            pairs += 1
            if numbers_of(evidence)[0] >= self.probability:
                return Match(index=int(index), pairs=pairs)
        return Match(pairs=pairs)

    def like(self, question: str, pairs: Sequence[tuple[str, str]]) -> Asking[Likes]:
        """Ask whether the heads entail the texts, in one ask, then, in one more as a rule, whether those that they do entail them."""
        whole = [(f"{question} {head}", f"{question} {text}") for head, text in pairs]
        evidence = yield Entails(pairs=tuple(whole), model=self.model)
        left = np.flatnonzero(numbers_of(evidence) >= self.probability).tolist()
        same: list[int] = []
        asked = len(whole)
        while left:
            # What an earlier pair may still make a member of its cluster waits: its own pairs may not be needed.
            ready = _first_of(left, pairs)
            back = tuple((whole[place][1], whole[place][0]) for place in ready)
            evidence = yield Entails(pairs=back, model=self.model)
            asked += len(back)
            both = numbers_of(evidence) >= self.probability
            same += [place for place, holds in zip(ready, both, strict=True) if holds]
            joined = {pairs[place][1] for place in same}
            left = [place for place in left if place not in ready and joined.isdisjoint(pairs[place])]
        return Likes(places=tuple(sorted(same)), pairs=asked)


def _first_of(places: Sequence[int], pairs: Sequence[tuple[str, str]]) -> list[int]:
    """The places of pairs neither of whose texts is the second of an earlier one."""
    found: list[int] = []
    seen: set[str] = set()
    for place in places:
        if seen.isdisjoint(pairs[place]):
            found.append(place)
        seen.add(pairs[place][1])
    return found


def check_embedding(model: object) -> None:
    """Refuse what embeds no texts.

    Raises
    ------
    PolicyError
    """
    if not isinstance(model, str) and not callable(model):
        msg = f"model is {model!r}: expected the name or folder of an embedding model, or a function of a list of texts"
        raise PolicyError(msg)


def embedding_of(texts: tuple[str, ...], model: Embedding) -> Embed:
    """The ask for unit vectors of some texts, by the model of a name or by a function."""
    if isinstance(model, str):
        return Embed(texts=texts, model=model)
    name = getattr(model, "__qualname__", type(model).__qualname__)
    return Embed(texts=texts, model=name, embed=partial(_unit_vectors, model))


def _unit_vectors(
    embed: Callable[[Sequence[str]], npt.ArrayLike], texts: Sequence[str]
) -> npt.NDArray[np.float32]:
    # Both hosts' embeddings refuse a tuple where they declare a list.
    vectors = np.asarray(embed([*texts]), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        msg = f"the embedding function returned shape {vectors.shape} for {len(texts)} texts: expected one vector a text"
        raise PolicyError(msg)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def numbers_of(evidence: Evidence) -> npt.NDArray[np.float32]:
    """The numbers that an Embed or Entails ask brought."""
    if evidence.numbers is None:
        msg = "an Embed or Entails ask was answered without numbers: the driver must do these asks"
        raise TypeError(msg)
    return evidence.numbers
