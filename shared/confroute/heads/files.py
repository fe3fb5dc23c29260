"""A head on disk: one folder with head.json and head.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from confroute.errors import MissingExtraError, PolicyError
from confroute.heads.base import Head
from confroute.heads.encoder import Encoder, EncoderId
from confroute.heads.factorisation import MatrixFactorisation
from confroute.heads.knn import NearestNeighbours
from confroute.heads.linear import Ridge
from confroute.heads.mlp import MLP
from confroute.heads.ranking import SimilarityRanking

FORMAT, VERSION = "confroute-head", 1
_KINDS: dict[str, Any] = {
    known.kind: known for known in (MLP, MatrixFactorisation, NearestNeighbours, Ridge, SimilarityRanking)
}


def save_head(head: Head, folder: str | Path, *, identity: EncoderId) -> Path:
    """Write a head and the identity of its encoder.

    Parameters
    ----------
    head : Head
    folder : str or Path
        Made if it is not there; a head in it is replaced.
    identity : EncoderId
        `encoder(...).identity()` of the encoder that made the training vectors.

    Raises
    ------
    PolicyError
        The head's kind is not one of confroute's, or its vectors cannot be the encoder's.
    MissingExtraError
        safetensors is not installed.
    """
    if type(head) is not _KINDS.get(head.kind):
        msg = f"a {type(head).__name__} cannot be written: expected one of {', '.join(sorted(_KINDS))}"
        raise PolicyError(msg)
    from_encoder = identity.dim + (0 if not identity.features else _features())
    if head.dim != from_encoder:
        msg = f"the head takes {head.dim} numbers, {identity.name} makes {from_encoder}: expected the encoder it was trained with"
        raise PolicyError(msg)
    save_file = _safetensors().save_file
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in head.arrays().items()}
    save_file({**arrays, "encoder.probe": identity.probe}, where / "head.safetensors")
    about = {
        "name": identity.name,
        "sha256": identity.sha256,
        "dim": identity.dim,
        "features": identity.features,
    }
    text = {
        "format": FORMAT,
        "version": VERSION,
        "kind": head.kind,
        "settings": head.settings(),
        "encoder": about,
    }
    (where / "head.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    return where


def load_head(folder: str | Path, encoder: Encoder | EncoderId) -> Head:
    """Read a head that `save_head` wrote, for use with `encoder`.

    Parameters
    ----------
    folder : str or Path
    encoder : Encoder or EncoderId
        The encoder whose vectors the head will get, or its identity.

    Raises
    ------
    PolicyError
        No head, one of another version, or one that was trained with another encoder.
    MissingExtraError
        safetensors is not installed.
    """
    where = Path(folder)
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
    if not isinstance(about, dict) or (about.get("format"), about.get("version")) != (FORMAT, VERSION):
        msg = f"{where / 'head.json'}: expected format {FORMAT!r}, version {VERSION}: train and save the head again"
        raise PolicyError(msg)
    kind = _KINDS.get(str(about.get("kind")))
    if kind is None:
        msg = f"{where}: unknown kind {about.get('kind')!r}: expected one of {', '.join(sorted(_KINDS))}"
        raise PolicyError(msg)
    try:
        trained = EncoderId(**about["encoder"], probe=arrays.pop("encoder.probe"))
        head: Head = kind.restored(arrays, about["settings"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{where} holds no whole head ({type(error).__name__}: {error}): train and save it again"
        raise PolicyError(msg) from error
    trained.check(encoder.identity() if isinstance(encoder, Encoder) else encoder)
    return head


def _features() -> int:
    from confroute.heads.features import FEATURES

    return len(FEATURES)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for="a head on disk") from error
    return safetensors.numpy
