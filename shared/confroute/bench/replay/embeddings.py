"""Embeddings on disk, so that a second run embeds nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from confroute.heads.base import Vectors
from confroute.heads.encoder import Encoder

_CHUNK = 1000


def embedded(
    encoder: Encoder, texts: Sequence[str], folder: Path, *, progress: Callable[[str], None] = lambda _: None
) -> Vectors:
    """Vectors of `texts`, from `folder` where they were embedded before.

    Parameters
    ----------
    encoder : Encoder
        Only its embedding is kept; features are computed anew.
    texts : sequence of str
    folder : Path
        One safetensors file a thousand texts, named by a hash of the encoder and the texts.
    progress : callable
        Told after each file that had to be made.

    Returns
    -------
    array of float32, shape (len(texts), dim)
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        _chunk(encoder, texts[start : start + _CHUNK], folder, progress)
        for start in range(0, len(texts), _CHUNK)
    ]
    return encoder.with_features(np.concatenate(found), texts)


def _chunk(encoder: Encoder, texts: Sequence[str], folder: Path, progress: Callable[[str], None]) -> Vectors:
    from safetensors.numpy import load_file, save_file

    path = folder / f"{chunk_key(encoder, texts)}.safetensors"
    if not path.is_file():
        part = path.with_suffix(".part")
        save_file({"vectors": np.ascontiguousarray(encoder.embedded(texts))}, part)
        part.replace(path)
        progress(f"embedded {len(texts)} prompts")
    return np.asarray(load_file(path)["vectors"], dtype=np.float32)


def chunk_key(encoder: Encoder, texts: Sequence[str]) -> str:
    """Name of the file that holds these texts' vectors."""
    digest = hashlib.sha256(f"{encoder.name}\0{encoder.sha256}".encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:32]
