"""The command line: pull and models."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import confroute
from confroute.cli import main
from confroute.errors import DownloadError
from confroute.models import catalog, download


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no hub."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CONFROUTE_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def place(name: str) -> Path:
    """Put sparse files of the right sizes into the cache, as if the model had been pulled."""
    entry = catalog.find(name)
    for file in entry.files:
        path = entry.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            out.truncate(file.size_bytes)
    (entry.folder / catalog.MANIFEST).write_text(json.dumps(entry.manifest()))
    return entry.path


def test_models_lists_the_catalogue(capsys):
    """Each model has a line with its size, licence and place, or the command that gets it."""
    path = place("smollm2-135m")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].split() == ["smollm2-135m", "chat", "98", "MB", "Apache-2.0", *str(path).split()]
    assert lines[1].endswith("not here: confroute pull qwen2.5-coder-0.5b")


def test_models_as_json(capsys):
    """The JSON form has the same facts under stable names."""
    path = place("all-minilm-l6-v2")
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["all-minilm-l6-v2"] == {
        "name": "all-minilm-l6-v2",
        "kind": "embedding",
        "size_bytes": 91_567_913,
        "licence": "Apache-2.0",
        "cached": True,
        "path": str(path),
    }
    assert rows["smollm2-135m"]["path"] is None


def test_pull_prints_only_the_path_on_stdout(capsys):
    """`$(confroute pull NAME)` is a path; words go to stderr."""
    path = place("smollm2-135m")
    assert main(["pull", "smollm2-135m"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}\n"
    assert "here already" in err


def test_pull_shows_a_bar_on_a_terminal(capsys, monkeypatch):
    """A terminal gets a progress bar, on stderr."""
    path = place("smollm2-135m")

    def fake(_name: str, *, verify: bool, progress: download.Progress) -> Path:
        assert not verify
        progress(1, 2)
        progress(2, 2)
        return path

    monkeypatch.setattr(download, "pull", fake)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["pull", "smollm2-135m"]) == 0
    assert capsys.readouterr().out == f"{path}\n"


def test_damage_is_found_by_verify(capsys):
    """`--verify` hashes the files; an error is one message and exit code 1."""
    place("all-minilm-l6-v2")
    assert main(["pull", "all-minilm-l6-v2", "--verify"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("confroute: all-minilm-l6-v2: SHA-256 is ")
    assert "Traceback" not in err


def test_unknown_model(capsys):
    """A misspelt name exits with 1 and the closest name."""
    assert main(["pull", "smollm"]) == 1
    assert "did you mean 'smollm2-135m'?" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["pull"], ["fly"], ["models", "--yaml"]])
def test_wrong_usage(capsys, argv):
    """Wrong usage exits with 2 and the usage line."""
    assert main(argv) == 2
    assert "usage: confroute" in capsys.readouterr().err


def test_version(capsys):
    """`--version` prints the version of the installed distribution."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"confroute {confroute.__version__}\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (DownloadError("no net"), 1)])
def test_exit_codes(capsys, monkeypatch, error, code):
    """Ctrl-C exits with 130, errors of confroute's own with 1, both without a traceback."""

    def fail(*_args: object, **_kwargs: object) -> Path:
        raise error

    monkeypatch.setattr(download, "pull", fail)
    assert main(["pull", "smollm2-135m"]) == code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_leaves_neither_files_nor_pip(cache, number, code):
    """A pull that is stopped while pip waits for its index cleans up and ends pip."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        address = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        env = {**os.environ, "PIP_INDEX_URL": address, "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
        command = [
            sys.executable,
            "-c",
            # Tests that a shell runs in the background inherit an ignored SIGINT, and so would this child.
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from confroute.cli import main; sys.exit(main())",
            "pull",
            "smollm2-135m",
        ]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process, ExitStack() as failing:
            failing.callback(process.kill)
            index.settimeout(20)
            connection, _ = index.accept()
            with connection:
                process.send_signal(number)
                # pip itself would wait for 15 s.
                assert process.wait(10) == code
                connection.settimeout(5)
                connection.recv(65_536)
                assert connection.recv(1) == b"", "pip still holds the connection"
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []
