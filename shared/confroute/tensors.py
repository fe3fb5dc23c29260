"""Arrays in safetensors files, whose library reports a full disk and a damaged file by an error of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from confroute.errors import MissingExtraError
from confroute.writing import replacing

__all__ = ["disk_errors", "read_arrays", "write_arrays"]


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
    packed = _safetensors(what).save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with replacing(path) as file:
        file.write(packed)


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
    # safetensors raises a type of its own, derived from Exception alone, and others for what it does not know.
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


def _safetensors(what: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for=what) from error
    return safetensors.numpy
