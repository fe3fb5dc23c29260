"""Sentence embeddings by a local encoder: what sentence-transformers computes, without depending on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confroute.errors import FormatError, ModelError
from confroute.models.loading import (
    chosen_dtype,
    freeze,
    load_network,
    load_tokenizer,
    locate,
    once,
    quiet,
    require_torch,
)
from confroute.reading import fields, items, json_file, refusing, text, whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = ["LocalEmbedder"]

BATCH = 32
PRODUCTS = ("float32", "bfloat16")
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderNetwork:
    """Loaded encoder; `max_tokens` includes the special tokens."""

    network: Any
    tokenizer: Any
    lock: threading.Lock
    max_tokens: int


class LocalEmbedder:
    """Turns texts into unit vectors; create one with `load`. Safe to call from several threads.

    ::

        embed = LocalEmbedder.load("all-minilm-l6-v2")
        a, b = embed(["a cat", "a kitten"])
        similarity = float(a @ b)
    """

    def __init__(self, *, encoder: EncoderNetwork, name: str, dtype: str = "float32") -> None:
        self._encoder, self._name, self._dtype = encoder, name, dtype

    @classmethod
    def load(cls, source: str | Path, *, dtype: str = "float32") -> LocalEmbedder:
        """Load an encoder; the same source shares one copy of the weights per process.

        Parameters
        ----------
        source : str or Path
            A catalogue name such as "all-minilm-l6-v2", or a sentence-transformers folder with mean pooling.
        dtype : {"float32", "bfloat16", "auto"}
            Type of the matrix products; weights and sums stay float32. "auto" is bfloat16 where the processor has
            instructions for it: three times faster there, and cosines move by some 0.001.

        Raises
        ------
        UnknownModelError
            Neither a path nor in the catalogue.
        ModelError
            The folder is damaged, its pooling is not supported, or the dtype is none of these.
        MissingExtraError
            torch or transformers is not installed.
        """
        require_torch("LocalEmbedder")
        if (dtype := chosen_dtype(dtype)) not in PRODUCTS:
            msg = f"dtype {dtype!r}: expected 'auto' or one of {', '.join(PRODUCTS)}"
            raise ModelError(msg)
        name, path, hub = locate(source)
        if path is None:
            msg = f"{hub}: expected a catalogue name or a sentence-transformers folder; download the model and pass its folder"
            raise ModelError(msg)
        return cls(
            encoder=once(("embed", os.path.realpath(path)), lambda: _load(path)), name=name, dtype=dtype
        )

    @property
    def name(self) -> str:
        """Catalogue or folder name."""
        return self._name

    @property
    def dtype(self) -> str:
        """Type of the matrix products, "float32" or "bfloat16"."""
        return self._dtype

    @property
    def dim(self) -> int:
        """Length of each vector."""
        size: int = self._encoder.network.config.hidden_size
        return size

    def __repr__(self) -> str:
        return f"LocalEmbedder({self._name!r}, dim={self.dim})"

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str
            Each is truncated to the encoder's maximum length.

        Returns
        -------
        ndarray of float32, shape (len(texts), dim)
            Rows of Euclidean length 1: their dot product is the cosine similarity, in [-1, 1].
        """
        import numpy as np
        import torch

        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        encoder, low = self._encoder, self._dtype == "bfloat16"
        with torch.inference_mode():
            for indices, batch in batches(encoder, [(text,) for text in texts]):
                # Its cache of converted weights would double their memory, for a gain that batches hide.
                with encoder.lock, torch.autocast("cpu", torch.bfloat16, enabled=low, cache_enabled=False):
                    states = encoder.network(**batch).last_hidden_state.float()
                out[indices] = unit_means(states, batch["attention_mask"]).numpy()
        return out


def unit_means(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over unmasked tokens, normalised: (texts, tokens, dim) and (texts, tokens) to (texts, dim)."""
    import torch

    counts = mask[:, :, None].to(states.dtype)
    means = (states * counts).sum(1) / counts.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(means, dim=1)


def batches(
    encoder: EncoderNetwork, texts: Sequence[tuple[str, ...]]
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yield (indices, padded tensors) of texts or text pairs, longest first, so that there is little padding."""
    import torch

    if not texts:
        return
    # Truncation is state of the tokenizer, which threads share; padding is done below, per batch.
    with encoder.lock:
        columns = encoder.tokenizer(
            *map(list, zip(*texts, strict=True)),
            truncation=True,
            max_length=encoder.max_tokens,
            padding=False,
        )
    lengths = [len(ids) for ids in columns["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    fill = {"input_ids": encoder.tokenizer.pad_token_id or 0}
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        width = lengths[indices[0]]
        yield (
            indices,
            {
                key: torch.tensor([rows[i] + [fill.get(key, 0)] * (width - lengths[i]) for i in indices])
                for key, rows in columns.items()
            },
        )


def _load(path: Path) -> EncoderNetwork:
    from transformers import AutoModel

    check_modules(path)
    with quiet():
        network = load_network(AutoModel, str(path), "float32")
        tokenizer = load_tokenizer(str(path))
    weights = freeze(network, tokenizer)
    settings = path / "sentence_bert_config.json"
    with refusing(ModelError, f"{settings}"):
        limit = whole(_json(settings).get("max_seq_length") or 512, "max_seq_length", low=1)
    limit = min(limit, network.config.max_position_embeddings)
    return EncoderNetwork(network=network, tokenizer=tokenizer, lock=weights.lock, max_tokens=limit)


def check_modules(path: Path) -> None:
    """Raise ModelError for modules and poolings that `LocalEmbedder` does not compute."""
    try:
        modules = [
            fields(module, f"[{at}]")
            for at, module in enumerate(items(json_file(path / "modules.json", ModelError), "modules.json"))
        ]
        types = [text(module.get("type"), "type") for module in modules]
        folders = [text(module.get("path"), "path") for module in modules]
    except (ModelError, FormatError) as error:
        msg = f"{path}: expected a sentence-transformers folder with modules.json ({error}); copy the whole folder again"
        raise ModelError(msg) from error
    kinds = [kind.rsplit(".", 1)[-1] for kind in types]
    pooling = next(
        (folder for folder, kind in zip(folders, types, strict=True) if kind.endswith("Pooling")), None
    )
    unknown = [kind for kind in kinds if kind not in KNOWN_MODULES]
    if unknown or pooling is None:
        msg = f"{path}: modules.json lists {kinds}: expected {list(KNOWN_MODULES)}; use sentence-transformers itself for this model"
        raise ModelError(msg)
    config = _json(path / pooling / "config.json")
    modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    if config.get("pooling_mode", "mean" if modes == ["pooling_mode_mean_tokens"] else modes) != "mean":
        msg = f"{path}: pooling {config.get('pooling_mode') or modes}: expected pooling_mode_mean_tokens alone; use sentence-transformers itself for this model"
        raise ModelError(msg)


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    with refusing(ModelError, f"{path}"):
        return fields(json_file(path, ModelError), "the file")
