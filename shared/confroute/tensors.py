"""Arrays in safetensors files, whose library reports a full disk and a damaged file by an error of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from confroute.errors import MissingExtraError
from confroute.writing import replacing

__all__ = ["disk_errors", "read_arrays", "write_arrays", "write_described"]


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]], what: str) -> None:
    """Write arrays in the place of what was at `path`, which stays if that fails.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to array
    what : str
        What they are, for the error that asks for safetensors.

    Raises
    ------
    MissingExtraError
        safetensors is not installed.
    OSError
        The file could not be written.
    """
    packed = _packed(arrays, what)
    with replacing(path) as file:
        file.write(packed)


def write_described(
    path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any], what: str
) -> None:
    """Write arrays, and beside them, with the suffix .json, what they are: where one of the files fails, both stay as they were.

    Parameters
    ----------
    path, arrays, what
        As for `write_arrays`.
    about : mapping
        What JSON can hold.

    Raises
    ------
    MissingExtraError, OSError
        As for `write_arrays`.
    """
    packed, words = _packed(arrays, what), json.dumps(about, indent=2) + "\n"
    with replacing(path) as file, replacing(Path(path).with_suffix(".json")) as beside:
        file.write(packed)
        # Both are on the disk before either takes its place.
        file.flush()
        os.fsync(file.fileno())
        beside.write(words.encode())


def read_arrays(
    path: str | os.PathLike[str], what: str, error: Callable[[str], Exception]
) -> dict[str, npt.NDArray[Any]]:
    """Read what `write_arrays` wrote.

    Parameters
    ----------
    path : path-like
    what : str
        As for `write_arrays`.
    error : callable
        Makes the error of this kind of file.

    Raises
    ------
    MissingExtraError
        safetensors is not installed.
    """
    load_file = _safetensors(what).load_file
    try:
        arrays: dict[str, npt.NDArray[Any]] = load_file(path)
    except FileNotFoundError as missing:
        msg = f"{path}: no such file"
        raise error(msg) from missing
    # safetensors raises a type of its own, derived from Exception alone, and others for data types that numpy lacks.
    except Exception as damage:
        msg = f"{path} holds no arrays that can be read ({type(damage).__name__}: {damage}): expected a whole safetensors file"
        raise error(msg) from damage
    return arrays


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what safetensors reports while it writes as an OSError, as everybody else does."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _packed(arrays: Mapping[str, npt.NDArray[Any]], what: str) -> bytes:
    made: bytes = _safetensors(what).save({name: np.ascontiguousarray(one) for name, one in arrays.items()})
    return made


def _safetensors(what: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for=what) from error
    return safetensors.numpy
