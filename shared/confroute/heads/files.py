"""A head on disk: one folder with head.json and head.safetensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, overload

import numpy as np

from confroute.errors import MissingExtraError, PolicyError
from confroute.heads.base import Head, TextHead, check_encoder
from confroute.heads.encoder import FEATURES, Encoder, EncoderId
from confroute.heads.knn import NearestNeighbours
from confroute.heads.linear import Ridge
from confroute.heads.networks import MLP, MatrixFactorisation
from confroute.heads.ranking import SimilarityRanking
from confroute.heads.words import WordRidge

# Version 2: networks are one matrix for all members, and heads on words are among the kinds.
FORMAT, VERSION = "confroute-head", 2
_KINDS: dict[str, Any] = {
    known.kind: known
    for known in (MLP, MatrixFactorisation, NearestNeighbours, Ridge, SimilarityRanking, WordRidge)
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
        A `TextHead`'s file holds words of the training prompts.
    folder : str or Path
        Made if it is not there; a head in it is replaced.
    identity : EncoderId, optional
        `encoder(...).identity()` of the encoder that made the training vectors; none for a head that reads texts.

    Raises
    ------
    PolicyError
        The head's kind is not one of confroute's, its vectors cannot be the encoder's, or an encoder that is lacking or
        not needed.
    MissingExtraError
        safetensors is not installed.
    """
    check_kind(head)
    check_encoder(head, given=identity is not None)
    if isinstance(head, Head) and identity is not None:
        _check_dim(head, identity)
    save_file = _safetensors().save_file
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in head.arrays().items()}
    text = {
        "format": FORMAT,
        "version": VERSION,
        "kind": head.kind,
        "settings": head.settings(),
        "encoder": None,
    }
    if identity is not None:
        arrays["encoder.probe"] = identity.probe
        text["encoder"] = {
            "name": identity.name,
            "sha256": identity.sha256,
            "dim": identity.dim,
            "features": identity.features,
        }
    save_file(arrays, where / "head.safetensors")
    (where / "head.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    return where


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
        The encoder whose vectors the head will get, or its identity; none for a head that reads texts.

    Raises
    ------
    PolicyError
        No head, one of another version, one that was trained with another encoder, or an encoder that is lacking or not
        needed.
    MissingExtraError
        safetensors is not installed.
    """
    where = Path(folder)
    about, arrays = _read(where)
    kind = _KINDS.get(str(about.get("kind")))
    if kind is None:
        msg = f"{where}: unknown kind {about.get('kind')!r}: expected one of {', '.join(sorted(_KINDS))}"
        raise PolicyError(msg)
    try:
        named = about["encoder"]
        trained = None if named is None else EncoderId(**named, probe=arrays.pop("encoder.probe"))
        head: Head | TextHead = kind.restored(arrays, about["settings"])
        check_encoder(head, given=trained is not None)
    except (KeyError, TypeError, ValueError, PolicyError) as error:
        msg = f"{where} holds no whole head ({type(error).__name__}: {error}): train and save it again"
        raise PolicyError(msg) from error
    given = encoder.identity() if isinstance(encoder, Encoder) else encoder
    check_encoder(head, given=given is not None)
    if trained is not None and given is not None:
        trained.check(given)
    return head


def check_kind(head: Head | TextHead) -> None:
    """Refuse a head that no file can hold.

    Raises
    ------
    PolicyError
        Its kind is not one of confroute's.
    """
    if type(head) is not _KINDS.get(head.kind):
        msg = f"a {type(head).__name__} cannot be written: expected one of {', '.join(sorted(_KINDS))}"
        raise PolicyError(msg)


def hash_of_head(folder: str | Path) -> str:
    """SHA-256 of a head's files, by which a policy knows the head that it was saved with.

    Raises
    ------
    PolicyError
        The folder holds no head.
    """
    digest = hashlib.sha256()
    try:
        for name in ("head.json", "head.safetensors"):
            digest.update((Path(folder) / name).read_bytes())
    except OSError as error:
        msg = f"{folder} holds no head ({error}): expected a folder that save_head wrote"
        raise PolicyError(msg) from error
    return digest.hexdigest()


def _read(where: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands in both files of a head of this version."""
    load_file = _safetensors().load_file
    try:
        about = json.loads((where / "head.json").read_text(encoding="utf-8"))
        arrays = load_file(where / "head.safetensors")
    # safetensors raises its own type, which is an Exception only.
    except Exception as error:
        msg = (
            f"{where} holds no head ({type(error).__name__}: {error}): expected a folder that save_head wrote"
        )
        raise PolicyError(msg) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        msg = f"{where / 'head.json'}: expected format {FORMAT!r}: train a head and save it"
        raise PolicyError(msg)
    if about.get("version") != VERSION:
        msg = (
            f"{where} holds a head of version {about.get('version')!r}, this confroute reads version {VERSION}, whose "
            "tensors are others: train the head again and save it"
        )
        raise PolicyError(msg)
    return about, arrays


def _check_dim(head: Head, identity: EncoderId) -> None:
    made = identity.dim + (len(FEATURES) if identity.features else 0)
    if head.dim != made:
        msg = f"the head takes {head.dim} numbers, {identity.name} makes {made}: expected the encoder it was trained with"
        raise PolicyError(msg)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for="a head on disk") from error
    return safetensors.numpy
