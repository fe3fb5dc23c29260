"""Fetch a catalogue model's files from its hub, and notice within seconds when there is none."""

from __future__ import annotations

import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import quote

from confroute.errors import DownloadError
from confroute.models.catalog import CatalogEntry, CatalogFile

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
