"""Ridge regression on the words and word pairs of a prompt: as good as an embedding with few labels, and better beside one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, RequestError
from confroute.heads.base import NO_LABELS, Estimate, Numbers, numbers_of, short_repr
from confroute.types import JSON

_WORD = re.compile(r"\w\w+")
_ONE_TEXT = "texts is one text: expected a list of them, so give [text]"
_MAX_STEPS, _TOLERANCE = 100, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordRidge:
    """Predicts the label from texts, without an encoder, by ridge regression on TF-IDF, clipped to [0, 1]; made by `fit`.

    Attributes
    ----------
    vocabulary : mapping of str to int
        Column of each word and of each pair of neighbouring words.
    idf, weights : array of float, shape (columns,)
    seen : array of float, shape (columns,)
        Sum of the squared values of each column over the training prompts.
    offset, noise : float
        Mean label and standard deviation of the residuals.
    penalty : float

    Notes
    -----
    A value is (1 + ln count) * idf with idf = 1 + ln((1 + n) / (1 + prompts with the term)), each prompt scaled to length
    1. `spread` is the standard deviation of the posterior mean as if columns were independent, ``noise * sqrt(sum x^2 /
    (seen + penalty))``; the share of terms outside the vocabulary enters with the prior alone, 1 / penalty.

    Examples
    --------
    >>> texts = ["prove this", "prove that", "name this", "name that"] * 4
    >>> head = WordRidge.fit(texts, [1, 1, 0, 0] * 4, penalty=0.1)
    >>> head.estimate(["prove it", "name it"]).cloud_wins.round().tolist()
    [1.0, 0.0]
    """

    vocabulary: Mapping[str, int] = field(repr=False)
    idf: Numbers = field(repr=False)
    weights: Numbers = field(repr=False)
    seen: Numbers = field(repr=False)
    offset: float
    noise: float
    penalty: float
    kind = "words"
    __repr__ = short_repr

    @classmethod
    def fit(
        cls, texts: Sequence[str], cloud_wins: npt.ArrayLike, *, penalty: float = 10.0, least: int = 2
    ) -> WordRidge:
        """Solve for the weights by conjugate gradients.

        Parameters
        ----------
        texts : sequence of str
        cloud_wins : array of float in [0, 1], shape (n,)
        penalty : float, above 0
            Factor of the squared weights.
        least : int
            Number of prompts in which a term must occur to be used.

        Raises
        ------
        CalibrationError
            A text in place of a list, labels that do not match the texts, are no numbers, all equal or outside [0, 1], a
            penalty of 0 or less, or no term that occurs in `least` prompts.
        """
        if isinstance(texts, str):
            raise CalibrationError(_ONE_TEXT)
        y = numbers_of(cloud_wins, np.float64)
        if y is None:
            raise CalibrationError(NO_LABELS)
        if (
            y.shape != (len(texts),)
            or y.size < 8
            or not (y.min() < y.max() and y.min() >= 0 and y.max() <= 1)
        ):
            msg = f"{len(texts)} texts and labels of shape {y.shape}: expected 8 or more, one label in [0, 1] each, not all equal"
            raise CalibrationError(msg)
        counts = [_terms(text) for text in texts]
        prompts_with = Counter(term for terms in counts for term in terms)
        frequent = [term for term, prompts in prompts_with.items() if prompts >= least]
        if penalty <= 0 or not frequent:
            msg = f"penalty {penalty}, {len(frequent)} terms that occur in {least} prompts or more: expected both above 0"
            raise CalibrationError(msg)
        vocabulary = {term: column for column, term in enumerate(frequent)}
        idf = 1 + np.log((1 + len(texts)) / (1 + np.array([prompts_with[term] for term in vocabulary])))
        table = _SparseMatrix.tf_idf(counts, vocabulary, idf)
        offset = float(y.mean())
        weights = table.ridge(y - offset, penalty)
        return cls(
            vocabulary=vocabulary,
            idf=idf,
            weights=weights,
            seen=np.bincount(table.columns, table.values**2, minlength=idf.size).astype(np.float64),
            offset=offset,
            noise=float(np.std(y - offset - table.times(weights))),
            penalty=penalty,
        )

    def estimate(self, texts: Sequence[str]) -> Estimate:
        """Predict for n prompts; see `TextHead`.

        Raises
        ------
        RequestError
            A text in place of a list.
        """
        if isinstance(texts, str):
            raise RequestError(_ONE_TEXT)
        counts = [_terms(text) for text in texts]
        table = _SparseMatrix.tf_idf(counts, self.vocabulary, self.idf)
        wins = np.clip(table.times(self.weights) + self.offset, 0, 1)
        unknown_share = np.array(
            [np.mean([term not in self.vocabulary for term in terms] or [True]) for terms in counts]
        )
        known = table.row_sums(table.values**2 / (self.seen + self.penalty)[table.columns])
        spread = self.noise * np.sqrt((1 - unknown_share) * known + unknown_share / self.penalty)
        return Estimate(cloud_wins=wins, spread=np.minimum(spread, 0.5))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors of its file."""
        return {"idf": self.idf, "weights": self.weights, "seen": self.seen}

    def settings(self) -> dict[str, JSON]:
        """The JSON settings of its file, which include the words and pairs of the training prompts in column order."""
        terms: list[JSON] = [*sorted(self.vocabulary, key=self.vocabulary.__getitem__)]
        return {
            "vocabulary": terms,
            "offset": self.offset,
            "noise": self.noise,
            "penalty": self.penalty,
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, Any]
    ) -> WordRidge:
        """Rebuild a head from the tensors and settings of its file.

        Raises
        ------
        ValueError
            An array does not have one number per term.
        """
        vocabulary = {str(term): at for at, term in enumerate(settings["vocabulary"])}
        idf, weights, seen = (arrays[name].astype(np.float64) for name in ("idf", "weights", "seen"))
        if not idf.shape == weights.shape == seen.shape == (len(vocabulary),):
            msg = f"{len(vocabulary)} terms, but arrays of shapes {idf.shape}, {weights.shape} and {seen.shape}: expected one number per term"
            raise ValueError(msg)
        return cls(
            vocabulary=vocabulary,
            idf=idf,
            weights=weights,
            seen=seen,
            offset=float(settings["offset"]),
            noise=float(settings["noise"]),
            penalty=float(settings["penalty"]),
        )


def _terms(text: str) -> Counter[str]:
    """How often each word and each pair of neighbouring words occurs."""
    words = _WORD.findall(text.lower())
    return Counter([*words, *map(" ".join, pairwise(words))])


def _sums(places: npt.NDArray[np.int64], values: Numbers, n: int) -> Numbers:
    """Sum values by their place, one of n."""
    return np.bincount(places, values, minlength=n).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _SparseMatrix:
    """A sparse matrix as three arrays: the row, the column and the value of each entry."""

    height: int
    width: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: Numbers

    @classmethod
    def tf_idf(
        cls, counts: Sequence[Counter[str]], vocabulary: Mapping[str, int], idf: Numbers
    ) -> _SparseMatrix:
        """TF-IDF of the known terms, each row scaled to length 1."""
        known = [
            [(vocabulary[term], count) for term, count in terms.items() if term in vocabulary]
            for terms in counts
        ]
        rows = np.repeat(np.arange(len(counts)), [len(pairs) for pairs in known])
        flat = np.array([pair for pairs in known for pair in pairs], dtype=np.int64).reshape(-1, 2)
        values = (1 + np.log(flat[:, 1])) * idf[flat[:, 0]]
        lengths = np.sqrt(np.bincount(rows, values**2, minlength=len(counts)))
        values = values / lengths[rows]
        return cls(height=len(counts), width=idf.size, rows=rows, columns=flat[:, 0], values=values)

    def row_sums(self, entries: Numbers) -> Numbers:
        """Sum values, one per entry, by row."""
        return _sums(self.rows, entries, self.height)

    def times(self, weights: Numbers) -> Numbers:
        """Multiply the matrix by a vector."""
        return self.row_sums(self.values * weights[self.columns])

    def ridge(self, y: Numbers, penalty: float) -> Numbers:
        """Minimise the squared error plus `penalty` times the squared weights, by conjugate gradients."""
        right = _sums(self.columns, self.values * y[self.rows], self.width)
        weights, residual = np.zeros(self.width), right.copy()
        direction, size = residual.copy(), float(residual @ residual)
        for _ in range(_MAX_STEPS):
            if size <= _TOLERANCE**2 * float(right @ right):
                break
            image = self.times(direction)
            curvature = _sums(self.columns, self.values * image[self.rows], self.width)
            curvature += penalty * direction
            step = size / float(direction @ curvature)
            weights, residual = weights + step * direction, residual - step * curvature
            before, size = size, float(residual @ residual)
            direction = residual + size / before * direction
        return weights
