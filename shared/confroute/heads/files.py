"""Saves and loads heads: one folder with head.json and head.safetensors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, overload

from confroute.errors import PolicyError
from confroute.heads.base import Head, TextHead, check_head_input
from confroute.heads.encoder import FEATURES, Encoder, EncoderId
from confroute.heads.gaussian_process import GaussianProcess
from confroute.heads.knn import NearestNeighbours
from confroute.heads.linear import Ridge
from confroute.heads.networks import MLP, MatrixFactorisation
from confroute.heads.ranking import SimilarityRanking
from confroute.heads.words import WordRidge
from confroute.reading import (
    Fields,
    fields,
    is_version,
    json_file,
    optional_fields,
    optional_text,
    refused,
    text,
    whole,
)
from confroute.tensors import read_arrays, write_described

# Version 2: a network is one matrix for all its members, and heads on words exist.
FORMAT, VERSION = "confroute-head", 2
_WHAT = "saving and loading heads"
_KINDS: dict[str, Any] = {
    head.kind: head
    for head in (
        GaussianProcess,
        MLP,
        MatrixFactorisation,
        NearestNeighbours,
        Ridge,
        SimilarityRanking,
        WordRidge,
    )
}


@overload
def save_head(head: Head, folder: str | Path, *, identity: EncoderId) -> Path: ...
@overload
def save_head(head: TextHead, folder: str | Path) -> Path: ...
def save_head(head: Head | TextHead, folder: str | Path, *, identity: EncoderId | None = None) -> Path:
    """Write a head and the identity of its encoder.

    Parameters
    ----------
    head : Head or TextHead
        The file of a `TextHead` contains words of the training prompts.
    folder : str or Path
        Created if needed; a head already in it is replaced.
    identity : EncoderId, optional
        `encoder(...).identity()` of the encoder that made the training vectors; omit it for a `TextHead`.

    Raises
    ------
    PolicyError
        The head is of an unknown kind, the encoder's vectors do not fit it, or the encoder is missing or superfluous.
    MissingExtraError
        safetensors is not installed.
    OSError
        The folder could not be written.
    """
    check_kind(head)
    check_head_input(head, has_encoder=identity is not None)
    if isinstance(head, Head) and identity is not None:
        _check_dim(head, identity)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = dict(head.arrays())
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kind": head.kind,
        "settings": head.settings(),
        "encoder": None,
    }
    if identity is not None:
        arrays["encoder.probe"] = identity.probe
        metadata["encoder"] = {
            "name": identity.name,
            "sha256": identity.sha256,
            "dim": identity.dim,
            "features": identity.features,
        }
    write_described(path / "head.safetensors", arrays, metadata, _WHAT)
    return path


@overload
def load_head(folder: str | Path, encoder: Encoder | EncoderId) -> Head: ...
@overload
def load_head(folder: str | Path) -> TextHead: ...
def load_head(folder: str | Path, encoder: Encoder | EncoderId | None = None) -> Head | TextHead:
    """Read a head that `save_head` wrote, for use with `encoder`.

    Parameters
    ----------
    folder : str or Path
    encoder : Encoder or EncoderId, optional
        The encoder whose vectors the head will get, or its identity; omit it for a `TextHead`.

    Raises
    ------
    PolicyError
        The folder holds no head or one of another version, the head was trained with another encoder, or the encoder is
        missing or superfluous.
    MissingExtraError
        safetensors is not installed.
    """
    path = Path(folder)
    metadata, arrays = _read(path)
    kind = _KINDS.get(str(metadata.get("kind")))
    if kind is None:
        msg = f"{path}: unknown kind {metadata.get('kind')!r}: expected one of {', '.join(sorted(_KINDS))}"
        raise PolicyError(msg)
    try:
        stored = optional_fields(metadata.get("encoder"), "encoder")
        trained = None if stored is None else _encoder_id(stored, arrays.pop("encoder.probe"))
        settings = fields(metadata.get("settings"), "settings")
        head: Head | TextHead = kind.from_arrays(arrays, settings)
        check_head_input(head, has_encoder=trained is not None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        msg = f"the head in {path} is incomplete or damaged ({type(error).__name__}: {error}): train and save it again"
        raise PolicyError(msg) from error
    current = encoder.identity() if isinstance(encoder, Encoder) else encoder
    check_head_input(head, has_encoder=current is not None)
    if trained is not None and current is not None:
        trained.check(current)
    return head


def _encoder_id(stored: Fields, probe: Any) -> EncoderId:
    features = stored.get("features")
    if not isinstance(features, bool):
        raise refused("encoder.features", features, "true or false")
    return EncoderId(
        name=text(stored.get("name"), "encoder.name"),
        sha256=optional_text(stored.get("sha256"), "encoder.sha256"),
        dim=whole(stored.get("dim"), "encoder.dim", low=1),
        features=features,
        probe=probe,
    )


def check_kind(head: Head | TextHead) -> None:
    """Refuse a head that no file can hold.

    Raises
    ------
    PolicyError
        Its kind is not one of confroute's.
    """
    if type(head) is not _KINDS.get(head.kind):
        msg = f"a {type(head).__name__} cannot be saved: expected a head of kind {', '.join(sorted(_KINDS))}"
        raise PolicyError(msg)


def hash_of_head(folder: str | Path) -> str:
    """SHA-256 of a head's files, by which a policy recognises the head that it was saved with.

    Raises
    ------
    PolicyError
        The folder does not hold a head.
    """
    digest = hashlib.sha256()
    try:
        for name in ("head.json", "head.safetensors"):
            digest.update((Path(folder) / name).read_bytes())
    except OSError as error:
        msg = f"{folder} does not hold a head ({error}): expected a folder that save_head wrote"
        raise PolicyError(msg) from error
    return digest.hexdigest()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of head.json and head.safetensors, if they are of this version."""
    try:
        metadata = json_file(folder / "head.json", PolicyError)
        arrays = read_arrays(folder / "head.safetensors", _WHAT, PolicyError)
    except PolicyError as error:
        msg = f"no head can be read from {folder} ({error}): expected a folder that save_head wrote"
        raise PolicyError(msg) from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        msg = f"{folder / 'head.json'}: expected format {FORMAT!r}: train a head and save it"
        raise PolicyError(msg)
    if not is_version(metadata.get("version"), VERSION):
        msg = (
            f"{folder} holds a head of version {metadata.get('version')!r}, but this confroute reads version {VERSION}, "
            "which stores other tensors: train the head again and save it"
        )
        raise PolicyError(msg)
    return metadata, arrays


def _check_dim(head: Head, identity: EncoderId) -> None:
    dim = identity.dim + (len(FEATURES) if identity.features else 0)
    if head.dim != dim:
        msg = f"the head takes vectors of length {head.dim}, {identity.name} makes vectors of length {dim}: expected the encoder it was trained with"
        raise PolicyError(msg)
