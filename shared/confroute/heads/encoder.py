"""Turns prompts into vectors with any embedding model (LangChain, LlamaIndex, local, your own), whose identity is checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import PolicyError
from confroute.heads.base import Vectors

Embed: TypeAlias = "Callable[[Sequence[str]], npt.ArrayLike]"
DEFAULT_MODEL = "all-minilm-l6-v2"
PROBE = "How many bolts of white fibre does a robe take if it takes two of blue and half as many of white?"
# Batching and threads change vectors by 1e-6; another model, pooling or normalisation changes them far more.
_MIN_COSINE = 0.9999

# Brings features to the size of an embedding of length 1, whose coordinates are about 0.05.
_FEATURE_SCALE = 0.05
_OPTION = re.compile(r"(?m)^\s*\(?[A-J][.):]\s")
_NUMBER = re.compile(r"\d[\d,]*\.?\d*")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")

FEATURES = (
    "log_characters",
    "log_question_characters",
    "log_option_characters",
    "options",
    "digit_share",
    "log_numbers",
    "distinct_number_share",
    "fraction_or_percent",
    "money",
    "formula_share",
    "lines",
    "log_sentences",
    "mean_word_length",
    "long_word_share",
    "distinct_word_share",
    "capital_share",
    "negation",
    "blank",
    "ends_with_question",
    "statements",
    "of_the_above",
    "code",
)


def prompt_features(texts: Sequence[str]) -> Vectors:
    """Compute cheap features of prompts, to use as a baseline or beside an embedding.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    array of float32, shape (len(texts), 22)
        Columns as in `FEATURES`: counts are log(1 + count), shares lie in [0, 1], the others are flags or small numbers.

    Examples
    --------
    >>> features = dict(zip(FEATURES, prompt_features(["What is 2 + 3?"])[0].tolist()))
    >>> round(features["log_characters"], 2), features["options"], features["ends_with_question"]
    (2.71, 0.0, 1.0)
    """
    return np.array([_features(text) for text in texts], dtype=np.float32).reshape(len(texts), len(FEATURES))


def _features(text: str) -> list[float]:
    marks = [*_OPTION.finditer(text)]
    question = text[: marks[0].start()] if marks else text
    numbers, words = _NUMBER.findall(text), _WORD.findall(text)
    size, low = max(1, len(text)), text.lower()
    log = np.log1p
    return [
        log(len(text)),
        log(len(question)),
        log(len(text) - len(question)),
        min(len(marks), 10) / 10,
        sum(map(str.isdigit, text)) / size,
        log(len(numbers)),
        len({*numbers}) / max(1, len(numbers)),
        float(bool(re.search(r"\d\s*/\s*\d|%|percent|half|third|quarter|twice|times as", low))),
        float("$" in text or "dollar" in low),
        sum(c in "=+*/^<>\\{}_" for c in text) / size,
        min(text.count("\n"), 20) / 10,
        log(len(_SENTENCE.findall(question))),
        float(np.mean([len(word) for word in words])) / 10 if words else 0.0,
        sum(len(word) > 8 for word in words) / max(1, len(words)),
        len({word.lower() for word in words}) / max(1, len(words)),
        sum(map(str.isupper, text)) / size,
        float(bool(re.search(r"\b(?:not|except|least|incorrect|false)\b", question.lower()))),
        float("__" in text),
        float(question.rstrip().endswith("?")),
        float("statement 1" in low or "statement i" in low),
        float("of the above" in low or "both a and" in low),
        float("```" in text or "def " in text or "();" in text),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderId:
    """Identifies the encoder that a head was trained with, so that the head refuses any other.

    Attributes
    ----------
    name : str
        The embedding model's own name.
    sha256 : str or None
        Hash of its weights, for a model from the catalogue or a folder.
    dim : int
        Length of the embedding, without features.
    features : bool
        Whether `prompt_features` are appended to it.
    probe : array of float32, shape (dim,)
        Its vector of one fixed sentence, which distinguishes two models of the same name where weights cannot be hashed.
    """

    name: str
    sha256: str | None
    dim: int
    features: bool
    probe: Vectors = field(repr=False)

    def check(self, other: EncoderId) -> None:
        """Refuse an encoder that is not this one.

        Raises
        ------
        PolicyError
            Another name, other weights, another size, or another vector of the probe.
        """
        mine = (self.name, self.sha256, self.dim, self.features)
        theirs = (other.name, other.sha256, other.dim, other.features)
        if mine != theirs:
            msg = f"the head was trained with (name, sha256, dim, features) {mine}, but this encoder is {theirs}: use the same model or train again"
            raise PolicyError(msg)
        cosine = float(self.probe @ other.probe) / max(
            1e-12, float(np.linalg.norm(self.probe) * np.linalg.norm(other.probe))
        )
        if cosine < _MIN_COSINE:
            msg = f"{self.name} gives the probe sentence another vector than when the head was trained (cosine {cosine:.4f}): use the same version and settings, or train again"
            raise PolicyError(msg)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoder:
    """Turns prompts into the vectors that a head takes: a named embedding model, with or without features; made by `encoder`.

    `source` is the name or folder of a local model, from which it can be made again; None for any other embedding.
    """

    name: str
    embed: Embed = field(repr=False)
    sha256: str | None = None
    features: bool = False
    source: str | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts`, shape (len(texts), dim)."""
        return self.with_features(self.embeddings(texts), texts)

    def embeddings(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts` without features.

        Raises
        ------
        PolicyError
            The embedding model returned another number of vectors, or vectors of unequal length.
        """
        vectors = np.asarray(self.embed(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            msg = f"{self.name} returned shape {vectors.shape} for {len(texts)} texts: expected one vector per text"
            raise PolicyError(msg)
        return vectors

    def with_features(self, vectors: Vectors, texts: Sequence[str]) -> Vectors:
        """Append the features of `texts` to their embeddings, if this encoder has features."""
        if not self.features:
            return vectors
        return np.hstack([vectors, np.float32(_FEATURE_SCALE) * prompt_features(texts)])

    def identity(self) -> EncoderId:
        """Embed the probe sentence and return this encoder's identity, which `save_head` stores."""
        probe = self.embeddings([PROBE])[0]
        return EncoderId(
            name=self.name, sha256=self.sha256, dim=probe.size, features=self.features, probe=probe
        )


def encoder(source: Any = DEFAULT_MODEL, *, name: str | None = None, features: bool = False) -> Encoder:
    """Make an encoder from an embedding model or function.

    Parameters
    ----------
    source : str, Path, Embeddings, BaseEmbedding or callable
        A local model by name or folder; an object of LangChain (`embed_documents`) or LlamaIndex
        (`get_text_embedding_batch`); or a function from a list of texts to one vector each.
    name : str, optional
        Name to store with heads; taken from the object by default.
    features : bool
        Append `prompt_features` to each vector.

    Raises
    ------
    PolicyError
        `source` cannot embed.
    ModelError, MissingExtraError
        The local model cannot be loaded.

    Examples
    --------
    >>> encoder(lambda texts: [[len(text), 1.0] for text in texts], name="length")(["four"]).tolist()
    [[4.0, 1.0]]
    """
    if isinstance(source, (str, Path)):
        from confroute.models.embed import LocalEmbedder

        local = LocalEmbedder.load(source)
        return Encoder(
            name=local.name,
            embed=local,
            sha256=_weights_hash(source),
            features=features,
            source=str(source),
        )
    for method in ("embed_documents", "get_text_embedding_batch"):
        embed: Any = getattr(source, method, None)
        if embed is not None:
            return Encoder(name=name or _name_of(source), embed=_on_lists(embed), features=features)
    if callable(source):
        function: Any = source
        return Encoder(name=name or _name_of(source), embed=function, features=features)
    msg = f"{source!r}: expected a model name, an embedding of LangChain or LlamaIndex, or a callable"
    raise PolicyError(msg)


def feature_names(dim: int) -> tuple[str, ...]:
    """Names of the columns of an encoder with features whose embedding has `dim` dimensions.

    Examples
    --------
    >>> feature_names(384)[383:385]
    ('e383', 'log_characters')
    """
    return (*(f"e{at}" for at in range(dim)), *FEATURES)


def _on_lists(embed: Callable[[list[str]], npt.ArrayLike]) -> Embed:
    # Both hosts' pydantic models refuse a tuple where they declare a list.
    return lambda texts: embed([*texts])


def _name_of(source: Any) -> str:
    for attribute in ("model_name", "model", "name", "__qualname__"):
        if isinstance(name := getattr(source, attribute, None), str) and name:
            return name
    return type(source).__qualname__


def _weights_hash(source: str | Path) -> str | None:
    from confroute.models.catalog import catalog_entries

    weights = Path(source) / "model.safetensors"
    if weights.is_file():
        digest = hashlib.sha256()
        with weights.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    files = [file for entry in catalog_entries() if entry.name == source for file in entry.files]
    hashes = [file.sha256 for file in files if file.path.endswith(".safetensors")]
    return hashes[0] if hashes else None
