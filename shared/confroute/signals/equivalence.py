"""Whether two answers to one question mean the same.

An equivalence is a small frozen object. Where it needs a model it yields an ask, as signals do, so it does no I/O
itself. Before any model is asked, equal normalised texts are the same, and answers with different final numbers or
options are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.asks import AskGenerator, Embed, Entails, Evidence
from confroute.errors import PolicyError
from confroute.registry import register
from confroute.signals.answers import final_answer, kind_of, normalised
from confroute.signals.base import compared_text, given_answers
from confroute.types import Generation

Embedding: TypeAlias = "str | Callable[[Sequence[str]], npt.ArrayLike]"
DEFAULT_EMBEDDING = "all-minilm-l6-v2"
_NEGATION = re.compile(r"\b(?:not|no|never|none|neither|nor|cannot|without)\b|n't\b", re.IGNORECASE)
# Pairs of one call's answers, which several signals compare.
_RECENT = 1024
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which of several answers equals another one, if any, and how many pairs a model compared to tell."""

    index: int | None = None
    pairs: int = 0


@runtime_checkable
class Equivalence(Protocol):
    """Decides which of several answers, if any, means the same as another one, where the texts alone do not tell."""

    def match(self, question: str, representatives: Sequence[str], text: str, /) -> AskGenerator[Match]:
        """Yield asks as needed; return the first of `representatives` that means the same as `text`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMatches:
    """The indices of the pairs of answers that mean the same, and how many pairs a model compared to tell."""

    indices: tuple[int, ...]
    pairs: int


@runtime_checkable
class PairwiseEquivalence(Protocol):
    """An equivalence that also compares many pairs at a time, for answers that arrived together."""

    def match_pairs(self, question: str, pairs: Sequence[tuple[str, str]], /) -> AskGenerator[PairMatches]:
        """Yield asks as needed; return which pairs (representative, answer) mean the same, as `match` would for each.

        Pairs are ordered by representative. An answer joins the first representative that it matches; from then on it is
        neither compared with another nor a representative itself, whatever its other pairs say.
        """
        ...


def settled_by_text(
    question: str, first: str, second: str, *, given: Collection[str] = frozenset()
) -> bool | None:
    """Whether two answers mean the same, where their texts alone decide; None where a model must be asked.

    Parameters
    ----------
    question, first, second : str
    given : collection of str
        Those answers that came in canonical form (`Generation.answer`). They are compared as they are, and an answer that came as
        text by the number, option or short text in it, as self-consistency does. Where a question asks for text, a model may
        still find that two of them mean the same, but for calls and structured values.

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
    return _settled_by_text(question, first, second, first in given, second in given)


@lru_cache(maxsize=_RECENT)
def _settled_by_text(
    question: str, first: str, second: str, first_given: bool, second_given: bool
) -> bool | None:
    came = {first: first_given, second: second_given}
    canonical = [text for text in (first, second) if came[text]]
    if not canonical and normalised(first) == normalised(second):
        return True
    if canonical or kind_of(question) != "text":
        a, b = (text if came[text] else final_answer(text, question) for text in (first, second))
        # Calls and structured values begin so.
        exact = kind_of(question) != "text" or any(text.startswith(("[", "{")) for text in canonical)
        if a == b is not None or (exact and (canonical or (a is not None and b is not None))):
            return a == b
    # Embeddings barely register a changed digit or a negation, either of which reverses the meaning.
    if sorted(_DIGITS.findall(first)) != sorted(_DIGITS.findall(second)):
        return False
    if bool(_NEGATION.search(first)) != bool(_NEGATION.search(second)):
        return False
    return None


def disagreement(question: str, edge: Generation, cloud: Generation) -> float:
    """Return 0.0 if both answers agree and 1.0 if not: by number or option if the question asks for one, else by wording.

    This suits short answers. Free text can differ in wording without being wrong: give `Audited` a loss of your own.

    Examples
    --------
    >>> disagreement("What is 2 + 2?", Generation(text="It is 4."), Generation(text="4"))
    0.0
    """
    first, second = map(compared_text, (edge, cloud))
    return 0.0 if settled_by_text(question, first, second, given=given_answers((edge, cloud))) else 1.0


@register(kind="equivalence")
@dataclass(frozen=True, slots=True, kw_only=True)
class SameText:
    """Answers are the same only if their texts, numbers or options agree; needs no model.

    Right for short answers. In free text every wording counts as another meaning, so too many calls are escalated,
    never too few.
    """

    def match(self, question: str, representatives: Sequence[str], text: str) -> AskGenerator[Match]:
        """Return no match: equal texts are recognised before an equivalence is consulted."""
        yield from ()
        return Match()


@register(kind="equivalence")
@dataclass(frozen=True, slots=True, kw_only=True)
class SameEmbedding:
    """Answers are the same if their embeddings, with the question prepended, have at least this cosine similarity.

    Parameters
    ----------
    model : str or callable
        A catalogue name or a folder of an embedding model, or a function from a list of texts to one vector each. A policy
        file holds functions that are registered (`confroute.policy.register`).
    cosine : float in [-1, 1]
        With the question in both texts every cosine is high: two unrelated answers to one short question still reach
        about 0.6.

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

    def match(self, question: str, representatives: Sequence[str], text: str) -> AskGenerator[Match]:
        """Compare embeddings, all in one ask."""
        texts = tuple(f"{question} {answer}" for answer in (text, *representatives))
        evidence = yield embedding_of(texts, self.model)
        vectors = numbers_of(evidence)
        near = np.flatnonzero(vectors[1:] @ vectors[0] >= self.cosine)
        return Match(index=int(near[0]) if near.size else None, pairs=len(representatives))


@register(kind="equivalence")
@dataclass(frozen=True, slots=True, kw_only=True)
class SameEntailment:
    """Answers are the same if each entails the other, with the question prepended: Kuhn et al. (arXiv 2302.09664).

    Parameters
    ----------
    model : str
        The folder or hub name of a natural-language-inference model. Its configuration says which label is
        "entailment".
    probability : float in (0, 1)
        The lowest probability of entailment that counts, in both directions.

    Notes
    -----
    The second direction is asked only if the first holds. Both are required: "Paris and London" entails "Paris", and
    they are different answers.
    """

    model: str
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            msg = f"probability is {self.probability}: expected a number between 0 and 1"
            raise PolicyError(msg)

    def match(self, question: str, representatives: Sequence[str], text: str) -> AskGenerator[Match]:
        """Ask once which representatives entail the text, then, one by one, whether the text entails those that do."""
        this = f"{question} {text}"
        forward = tuple((f"{question} {first}", this) for first in representatives)
        evidence = yield Entails(pairs=forward, model=self.model)
        pairs = len(forward)
        for index in np.flatnonzero(numbers_of(evidence) >= self.probability):
            evidence = yield Entails(pairs=((this, forward[index][0]),), model=self.model)
            pairs += 1
            if numbers_of(evidence)[0] >= self.probability:
                return Match(index=int(index), pairs=pairs)
        return Match(pairs=pairs)

    def match_pairs(self, question: str, pairs: Sequence[tuple[str, str]]) -> AskGenerator[PairMatches]:
        """Ask once for all forward directions, then, usually once more, for the reverse of those that hold."""
        prompted = [(f"{question} {first}", f"{question} {text}") for first, text in pairs]
        evidence = yield Entails(pairs=tuple(prompted), model=self.model)
        pending = np.flatnonzero(numbers_of(evidence) >= self.probability).tolist()
        matches: list[int] = []
        compared = len(prompted)
        while pending:
            # An answer that an earlier pair may still place in a cluster waits: its own pairs may not be needed.
            ready = _independent(pending, pairs)
            reverse = tuple((prompted[index][1], prompted[index][0]) for index in ready)
            evidence = yield Entails(pairs=reverse, model=self.model)
            compared += len(reverse)
            both = numbers_of(evidence) >= self.probability
            matches += [index for index, holds in zip(ready, both, strict=True) if holds]
            joined = {pairs[index][1] for index in matches}
            pending = [index for index in pending if index not in ready and joined.isdisjoint(pairs[index])]
        return PairMatches(indices=tuple(sorted(matches)), pairs=compared)


def _independent(indices: Sequence[int], pairs: Sequence[tuple[str, str]]) -> list[int]:
    """The indices of pairs neither of whose texts is the answer of an earlier pair."""
    independent: list[int] = []
    answers: set[str] = set()
    for index in indices:
        if answers.isdisjoint(pairs[index]):
            independent.append(index)
        answers.add(pairs[index][1])
    return independent


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
    """The numbers in the evidence of an `Embed` or `Entails`; TypeError where a driver left them out."""
    if evidence.numbers is None:
        msg = "an Embed or Entails ask was answered without numbers: a driver must answer it with Evidence(numbers=...)"
        raise TypeError(msg)
    return evidence.numbers
