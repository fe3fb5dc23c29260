"""Prompts to vectors: any embedding of LangChain, LlamaIndex, this package or your own, with an identity that is checked."""

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
    """Cheap features of prompts, as a baseline and beside an embedding.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    array of float32, shape (len(texts), 22)
        Named by `FEATURES`; counts are log(1 + count), shares lie in [0, 1], the rest are 0 or 1 or small numbers.

    Examples
    --------
    >>> found = dict(zip(FEATURES, prompt_features(["What is 2 + 3?"])[0].tolist()))
    >>> round(found["log_characters"], 2), found["options"], found["ends_with_question"]
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


Embed: TypeAlias = "Callable[[Sequence[str]], npt.ArrayLike]"
DEFAULT_MODEL = "all-minilm-l6-v2"
PROBE = "How many bolts of white fibre does a robe take if it takes two of blue and half as many of white?"
# Batching and threads change vectors by 1e-6; another model, pooling or normalisation by far more.
_LEAST_COSINE = 0.9999
# Against an embedding of length 1, whose coordinates are about 0.05.
_FEATURE_SCALE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderId:
    """What a head remembers of the encoder it was trained with.

    Attributes
    ----------
    name : str
        The embedding model's own name.
    sha256 : str or None
        Of its weights, for a model of the catalogue or a folder.
    dim : int
        Length of the embedding, without features.
    features : bool
        Whether the cheap features stand behind it.
    probe : array of float32, shape (dim,)
        Its vector of one fixed sentence: what tells two models of one name apart where weights cannot be hashed.
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
            msg = f"the head was trained with (name, sha256, dim, features) {mine}, this encoder is {theirs}: use the same model or train again"
            raise PolicyError(msg)
        cosine = float(self.probe @ other.probe) / max(
            1e-12, float(np.linalg.norm(self.probe) * np.linalg.norm(other.probe))
        )
        if cosine < _LEAST_COSINE:
            msg = f"{self.name} gives the probe sentence another vector (cosine {cosine:.4f}) than when the head was trained: use the same version and settings, or train again"
            raise PolicyError(msg)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoder:
    """An embedding model with its name, and whether cheap features stand behind its vectors; made by `encoder`.

    `source` is the name or folder of a local model, of which it can be made again; None for any other embedding.
    """

    name: str
    embed: Embed = field(repr=False)
    sha256: str | None = None
    features: bool = False
    source: str | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts`, shape (len(texts), dim)."""
        return self.with_features(self.embedded(texts), texts)

    def embedded(self, texts: Sequence[str]) -> Vectors:
        """The embedding alone.

        Raises
        ------
        PolicyError
            The embedding model returned another number of vectors, or none of one length.
        """
        found = np.asarray(self.embed(texts), dtype=np.float32)
        if found.ndim != 2 or len(found) != len(texts):
            msg = (
                f"{self.name} returned shape {found.shape} for {len(texts)} texts: expected one vector a text"
            )
            raise PolicyError(msg)
        return found

    def with_features(self, vectors: Vectors, texts: Sequence[str]) -> Vectors:
        """Vectors that are there already, with the features of `texts` behind them where this encoder has them."""
        if not self.features:
            return vectors
        return np.hstack([vectors, np.float32(_FEATURE_SCALE) * prompt_features(texts)])

    def identity(self) -> EncoderId:
        """Embed the probe sentence and say who this is."""
        probe = self.embedded([PROBE])[0]
        return EncoderId(
            name=self.name, sha256=self.sha256, dim=probe.size, features=self.features, probe=probe
        )


def encoder(source: Any = DEFAULT_MODEL, *, name: str | None = None, features: bool = False) -> Encoder:
    """Make an encoder of whatever embeds.

    Parameters
    ----------
    source : str, Path, Embeddings, BaseEmbedding or callable
        A local model by name or folder; an object of LangChain (`embed_documents`) or LlamaIndex
        (`get_text_embedding_batch`); or a function from a list of texts to one vector each.
    name : str, optional
        Name to remember; read from the object where it has one.
    features : bool
        Put `prompt_features` behind each vector.

    Raises
    ------
    PolicyError
        Nothing that embeds.
    ModelError, MissingExtraError
        A local model that cannot be loaded.

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
        found: Any = getattr(source, method, None)
        if found is not None:
            return Encoder(name=name or _name_of(source), embed=_listed(found), features=features)
    if callable(source):
        embed: Any = source
        return Encoder(name=name or _name_of(source), embed=embed, features=features)
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


def _listed(embed: Callable[[list[str]], npt.ArrayLike]) -> Embed:
    # Both hosts' pydantic models refuse a tuple where they declare a list.
    return lambda texts: embed([*texts])


def _name_of(source: Any) -> str:
    for attribute in ("model_name", "model", "name", "__qualname__"):
        if isinstance(found := getattr(source, attribute, None), str) and found:
            return found
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
