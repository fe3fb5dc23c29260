"""Natural-language inference by a local classifier: the probability that one text entails another."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confroute.errors import ModelError
from confroute.models.embed import EncoderNetwork, batches
from confroute.models.loading import freeze, load_network, load_tokenizer, locate, once, quiet, require_torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LocalNLI"]

CACHED_PAIRS = 65_536


class LocalNLI:
    """Gives the probability that the first text of a pair entails the second; create one with `load`.

    Safe to call from several threads. Results of the last 65,536 pairs are cached.

    ::

        entails = LocalNLI.load("path/to/deberta-mnli")
        entails([("It is Paris.", "The capital is Paris.")])  # array([0.98], dtype=float32)
    """

    def __init__(self, *, encoder: EncoderNetwork, name: str, entailment: int) -> None:
        self._encoder, self._name, self._entailment = encoder, name, entailment
        self._results: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._guard = threading.Lock()

    @classmethod
    def load(cls, source: str | Path) -> LocalNLI:
        """Load a classifier; the same source shares one copy of the weights per process.

        Parameters
        ----------
        source : str or Path
            A folder that `AutoModelForSequenceClassification` reads, a hub name "org/name", or a catalogue name. Its
            config.json must name exactly one label "entailment" (case and a prefix do not matter).

        Raises
        ------
        UnknownModelError
            The name is neither a path, nor a hub name, nor in the catalogue.
        ModelError
            The model is damaged, or its labels do not say which one is entailment.
        MissingExtraError
            torch or transformers is not installed.
        """
        require_torch("LocalNLI")
        name, path, hub = locate(source)
        key = ("nli", os.path.realpath(path) if path else hub)
        encoder = once(key, lambda: _load(str(path or hub)))
        return cls(encoder=encoder, name=name, entailment=entailment_index(encoder.network.config, name))

    @property
    def name(self) -> str:
        """Catalogue, hub or folder name."""
        return self._name

    def __repr__(self) -> str:
        return f"LocalNLI({self._name!r})"

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Rate pairs of texts.

        Parameters
        ----------
        pairs : sequence of (premise, hypothesis)
            Truncated to the model's maximum length, the longer text first.

        Returns
        -------
        ndarray of float32, shape (len(pairs),)
            Probability, in [0, 1], that the first text entails the second.
        """
        import numpy as np

        with self._guard:
            results = {pair: self._results[pair] for pair in pairs if pair in self._results}
        new = list(dict.fromkeys(pair for pair in pairs if pair not in results))
        results.update(zip(new, self._compute(new), strict=True))
        with self._guard:
            for pair in pairs:
                self._results[pair] = results[pair]
                self._results.move_to_end(pair)
            while len(self._results) > CACHED_PAIRS:
                self._results.popitem(last=False)
        return np.array([results[pair] for pair in pairs], dtype=np.float32)

    def _compute(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        import torch

        probabilities = [0.0] * len(pairs)
        with torch.inference_mode():
            for indices, batch in batches(self._encoder, pairs):
                with self._encoder.lock:
                    logits = self._encoder.network(**batch).logits
                column = logits.float().softmax(1)[:, self._entailment].tolist()
                for index, value in zip(indices, column, strict=True):
                    probabilities[index] = value
        return probabilities


def entailment_index(config: Any, name: str) -> int:
    """Read from a model's configuration which output means entailment.

    Raises
    ------
    ModelError
        Not exactly one label is called entailment.
    """
    labels = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    labels.update(
        {
            int(index): str(label)
            for label, index in (config.label2id or {}).items()
            if int(index) not in labels
        }
    )
    matches = [index for index, label in labels.items() if _means_entailment(label)]
    if len(matches) == 1:
        return matches[0]
    msg = (
        f"{name}: its labels are {sorted(labels.values())}: expected exactly one called 'entailment'; "
        f"set id2label and label2id in its config.json in the order of its model card"
    )
    raise ModelError(msg)


def _means_entailment(label: str) -> bool:
    # "not_entailment" and "non-entailment" are the other label of two-label models.
    words = [word for word in re.split(r"[^a-z]+", label.lower()) if word]
    return words[-1:] == ["entailment"] and not {"not", "non", "no"} & set(words)


def _load(where: str) -> EncoderNetwork:
    from transformers import AutoModelForSequenceClassification

    with quiet():
        network = load_network(AutoModelForSequenceClassification, where, "float32")
        tokenizer = load_tokenizer(where)
    weights = freeze(network, tokenizer)
    limits = (getattr(network.config, "max_position_embeddings", None), tokenizer.model_max_length, 512)
    limit = min(int(size) for size in limits if size)
    return EncoderNetwork(network=network, tokenizer=tokenizer, lock=weights.lock, max_tokens=limit)
