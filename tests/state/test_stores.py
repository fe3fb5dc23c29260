"""Stores change records exactly under many threads and processes, and name what they cannot read."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from confroute.errors import (
    StateError,
)
from confroute.state import RedisStore, SQLiteStore

ADD_ONE = """
import sys
from confroute.state import SQLiteStore
store = SQLiteStore(sys.argv[1])
for _ in range(100):
    store.change(["n"], lambda records: ([{"n": (records[0] or {"n": 0})["n"] + 1}], None))
store.close()
"""


def test_sqlite_is_exact_under_eight_processes_and_outlives_them(tmp_path):
    """800 changes by 8 processes are 800, and the next process reads them."""
    path = tmp_path / "state.db"
    workers = [subprocess.Popen([sys.executable, "-c", ADD_ONE, str(path)]) for _ in range(8)]
    assert [worker.wait() for worker in workers] == [0] * 8
    store = SQLiteStore(path)
    assert store.change(["n"], lambda records: (records, records[0]["n"])) == 800
    store.close()


LEFT_OPEN = """
import os, sys
from confroute.state import SQLiteStore
store = SQLiteStore(sys.argv[1])
store.change(["k"], lambda _: ([{"by": "parent"}], None))
if os.fork() == 0:
    store.change(["k"], lambda records: ([{**records[0], "also": "child"}], None))
    sys.exit()
os.wait()
print(store.change(["k"], lambda records: (records, records[0])))
sys.excepthook = lambda *_, store=store: None  # lives as long as the interpreter, longer than its modules
"""


def test_an_open_store_survives_a_fork_and_ends_quietly(tmp_path):
    """A child process uses the same file, and no warning is printed when the interpreter ends."""
    command = [sys.executable, "-X", "dev", "-c", LEFT_OPEN, str(tmp_path / "s.db")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (process.stdout, process.stderr) == ("{'by': 'parent', 'also': 'child'}\n", "")


def test_redis_is_exact_under_eight_workers(redis_url):
    """200 changes by 8 workers, each with its own connection, are 200."""

    def work(_):
        store = RedisStore(redis_url)
        for _ in range(25):
            store.change(["n"], lambda records: ([{"n": (records[0] or {"n": 0})["n"] + 1}], None))
        store.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    store = RedisStore(redis_url)
    assert store.change(["n"], lambda records: (records, records[0]["n"])) == 200
    store.close()


def test_a_file_that_is_not_a_database_is_named(tmp_path):
    """The error is one of confroute's."""
    (tmp_path / "b.db").write_text("not a database, but long enough to be read as one" * 20)
    store = SQLiteStore(tmp_path / "b.db")
    with pytest.raises(StateError, match=r"b\.db cannot be changed"):
        store.change(["a"], lambda _: ([{}], None))
    store.close()
