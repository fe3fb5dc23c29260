"""A disk that takes no more: what was written stays whole, the error says so, and with room again writing goes on."""

from __future__ import annotations

import contextlib
import errno
import json

import numpy as np
import pytest

from confroute import Cascade, Decision, TokenLogprob
from confroute.errors import LogError, StateError
from confroute.heads import WordRidge, save_head
from confroute.heads.files import hash_of_head
from confroute.labels.run import _append
from confroute.observe.log import DecisionLog, read_log
from confroute.observe.trace import publish
from confroute.policy import load_policy, save_policy
from confroute.recording import RecordError, Row, Side, append_row, read_rows, write_rows
from confroute.state import SQLiteStore
from confroute.tensors import disk_errors, read_arrays, write_arrays
from confroute.writing import Appending, replacing, write_whole

resource = pytest.importorskip("resource", reason="the size of files cannot be limited here")


@contextlib.contextmanager
def full_from(size):
    """The system takes no byte of any file beyond this size: a part of what is written, then an error, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def append(path):
    """Bytes as they are."""
    with Appending(path) as file:
        file.write(b'{"id": "a line that is longer than what is left"}\n')


def append_twice(path):
    """Through one handle: the second write is refused, the first stays."""
    with Appending(path) as file:
        file.write(b"{}\n")
        file.write(b'{"id": "a line that is longer than what is left"}\n')


APPENDING = {
    "bytes": append,
    "a recorded row": lambda path: append_row(path, Row(id="a", edge=Side(text="a text of its own"))),
    "a label": lambda path: _append(path, {"id": "a label that is longer than what is left"}),
}


@pytest.mark.parametrize("write", APPENDING.values(), ids=APPENDING)
@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_line_is_written_whole_or_not_at_all(write, room, tmp_path):
    """However many of its bytes went in."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"id": "first"}\n')
    with full_from(16 + room), pytest.raises(OSError, match="File too large"):
        write(path)
    assert path.read_bytes() == b'{"id": "first"}\n'
    write(path)
    assert [json.loads(line)["id"][:1] for line in path.read_bytes().splitlines()] == ["f", "a"]


def test_what_was_whole_before_stays(tmp_path):
    """Earlier writes through the same handle."""
    path = tmp_path / "lines.jsonl"
    with full_from(20), pytest.raises(OSError, match="File too large"):
        append_twice(path)
    assert path.read_bytes() == b"{}\n"


def test_a_device_that_is_full_is_an_error():
    """Nothing can be cut off there."""
    with pytest.raises(OSError, match="No space left"):
        append("/dev/full")


def decided(reason):
    """A decision that says this."""
    publish(Decision(route="edge", stage="draft", reason=reason))


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_decision_log_stays_whole_and_the_call_ends_in_an_error(room, tmp_path):
    """With what to do; the log goes on by itself once there is room, with every other decision and no torn line."""
    path = tmp_path / "log.jsonl"
    with DecisionLog(path):
        decided("before")
        size = path.stat().st_size
        with (
            full_from(size + room),
            pytest.raises(LogError, match=r"log\.jsonl cannot be written \(.*make room"),
        ):
            decided("refused")
        assert path.stat().st_size == size
        decided("after")
    reasons = [entry.decision.reason for entry in read_log(path, torn=pytest.fail)]
    assert reasons == ["before", "after"]


POLICY = Cascade.of(TokenLogprob(), 0.3)
ROWS = [Row(id=f"r{number}", edge=Side(text="text")) for number in range(3)]


def break_off(path):
    """A writer that fails in the middle for a reason of its own."""
    with replacing(path) as file:
        file.write(b"half")
        raise OSError(errno.EFBIG, "as if")


REPLACING = {
    "a policy": (lambda path: save_policy(POLICY, path), lambda path: load_policy(path) == POLICY),
    "a run": (lambda path: write_rows(path, ROWS), lambda path: [*read_rows(path)] == ROWS),
    "a text": (lambda path: write_whole(path, "0123456789" * 9), lambda path: len(path.read_text()) == 90),
    "arrays": (
        lambda path: write_arrays(path, {"x": np.arange(9.0)}, "arrays"),
        lambda path: read_arrays(path, "arrays", RecordError)["x"].tolist() == [*range(9)],
    ),
}


@pytest.mark.parametrize(("write", "is_whole"), REPLACING.values(), ids=REPLACING)
def test_a_file_that_cannot_be_replaced_is_as_it_was(write, is_whole, tmp_path):
    """And nothing else is left in its folder."""
    path = tmp_path / "file"
    path.write_bytes(b"what was there")
    with full_from(20), pytest.raises(OSError, match="File too large"):
        write(path)
    assert path.read_bytes() == b"what was there"
    with pytest.raises(OSError, match="as if"):
        break_off(path)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    write(path)
    assert is_whole(path)


def test_a_head_that_cannot_be_replaced_is_as_it_was(tmp_path):
    """Whichever of its two files it is that does not fit: weights of other words than the description's would be read as one head."""
    head = WordRidge.fit(["prove this", "name that"] * 8, [1, 0] * 8, penalty=0.1)
    save_head(head, tmp_path)
    before = hash_of_head(tmp_path)
    other = WordRidge.fit(["prove this", "name that"] * 8, [0, 1] * 8, penalty=0.1)
    sizes = sorted(one.stat().st_size for one in tmp_path.iterdir())
    for room in (20, sizes[0] - 1, sizes[1] - 1):
        with full_from(room), pytest.raises(OSError, match="File too large"):
            save_head(other, tmp_path)
        assert hash_of_head(tmp_path) == before
    save_head(other, tmp_path)
    assert hash_of_head(tmp_path) != before
    assert len([*tmp_path.iterdir()]) == 2


def test_weights_that_do_not_fit_are_an_error_of_the_disk(tmp_path):
    """What torch's modules are written by has an error of its own, which no caller knows."""
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    with full_from(20), pytest.raises(OSError, match="File too large"), disk_errors():
        safetensors.save_model(torch.nn.Linear(4, 4), str(tmp_path / "model.safetensors"))


def test_a_store_keeps_what_it_has(tmp_path):
    """A change that does not fit is none, its error names file and cause, and later ones go on."""
    store = SQLiteStore(tmp_path / "state.sqlite")

    def put(key, value):
        return store.change([key], lambda _: ([{"value": value}], None))

    def get(key):
        return store.change([key], lambda records: (records, records[0]))

    put("a", "first")
    size = max(one.stat().st_size for one in tmp_path.iterdir())
    with (
        full_from(size),
        pytest.raises(StateError, match=r"state\.sqlite cannot be changed \(OperationalError: "),
    ):
        put("a", "x" * 100_000)
    assert get("a") == {"value": "first"}
    put("a", "second")
    assert get("a") == {"value": "second"}
    store.close()
