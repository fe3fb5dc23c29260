"""What the scripts that count hops, load and overhead measure."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.core")

FOLDER = Path(__file__).parents[2] / "benchmarks"
ROUTERS = ("ChatConfRoute", "ConfRouteLLM")


def ran(name, *arguments):
    """A script's run, in an environment that reaches no provider."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    command = [sys.executable, str(FOLDER / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=240, check=False)


def result(name, *arguments):
    """What a script prints as JSON; nothing goes wrong on the way."""
    done = ran(name, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def hops(monkeypatch):
    """The script that counts frames."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("hops", FOLDER / "hops.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "_scripted", raising=False)
    return module


def test_hops_by_hand(hops, tmp_path):
    """Every function once, resumptions apart, others' files and test kits not at all."""
    sources = {
        "a.py": "def outer(inner, numbers, fake):\n    fake(inner)\n    return inner(numbers) + sum(numbers())\n",
        "b.py": "def inner(numbers):\n    return sum(numbers())\n\ndef numbers():\n    yield 1\n    yield 2\n",
        "testing/c.py": "def fake(inner):\n    inner(tuple)\n",
    }
    names = {}
    for file, source in sources.items():
        path = tmp_path / "package" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        exec(compile(source, str(path), "exec"), names)
    counted = hops.Hops(roots={"package": tmp_path / "package"})
    sys.setprofile(counted)
    try:
        assert names["outer"](names["inner"], names["numbers"], names["fake"]) == 6
    finally:
        sys.setprofile(None)
    # outer, inner, and numbers twice; each of these is resumed after its creation, after 1 and after 2.
    counts = counted.counts()
    assert (counts["calls"], counts["files"], counts["depth"]) == (4, 2, 3)
    assert counts["entries"] - counts["calls"] == sum(entry.resumed for entry in counted.entries) >= 4
    assert counts["switches"] == 1
    lines = counted.tree().splitlines()
    assert lines[:2] == ["package/a.py outer", "  package/b.py inner"]
    assert not any("fake" in line for line in lines)


@pytest.mark.slow
def test_hops_of_every_host():
    """An escalated call makes more than a kept one; a tree shows what was counted."""
    found = result("hops.py")
    for router in ROUTERS:
        for form in ("sync", "async"):
            kept, escalated = (found[f"{router} {route} {form}"] for route in ("kept", "escalated"))
            assert 20 < kept["calls"] < escalated["calls"] <= escalated["frames"] <= escalated["entries"]
            assert 5 < kept["depth"] <= escalated["depth"] < 60
            assert 1 < kept["files"] <= kept["switches"] < escalated["switches"]
    one = ran("hops.py", "--only", "ConfRouteLLM", "kept", "sync", "--trace").stdout.splitlines()
    assert one[0] == "ConfRouteLLM kept sync"
    assert any(line.startswith("  ") and "llamaindex_confroute/" in line for line in one)
    assert not any("/testing" in line for line in one)
    wrong = ran("hops.py", "--only", "nobody")
    assert (wrong.returncode, "nobody" in wrong.stderr, "Traceback" in wrong.stderr) == (2, True, False)


@pytest.mark.slow
def test_load_of_every_variant():
    """Real clients, each answered by the model of its route; two requests cost more than one."""
    found = result("load.py", "--calls", "40", "--at-once", "8", "--repeats", "2", "--answer-s", "0.001")
    assert (found["calls"], found["at_once"], found["repeats"]) == (40, 8, 2)
    rows = found["variants"]
    assert [*rows][:4] == ["bare", "with_fallbacks", "ChatConfRoute, kept", "ChatConfRoute, escalated"]
    for row in rows.values():
        for key in ("calls_per_s", "cpu_ms"):
            middle, least, greatest = row[f"{key}_of_bare"]
            assert row[key] > 0
            assert 0 < least <= middle <= greatest
    assert rows["bare"]["cpu_ms_of_bare"] == [1, 1, 1]
    assert rows["ChatConfRoute, escalated"]["cpu_ms_of_bare"][0] > 1


@pytest.mark.slow
def test_load_without_time_says_so():
    """No table of nothing."""
    done = ran("load.py", "--calls", "8", "--at-once", "2", "--limit-s", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "within 0 s" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("clock", [(), ("--cpu",)])
def test_overhead_of_every_variant(clock):
    """Sync and async, each row beside the bare model's."""
    found = result("overhead.py", "--rounds", "2", "--calls", "20", *clock)
    for form in ("invoke", "ainvoke"):
        rows = found[form]
        assert {"bare model", "with_fallbacks", "two bare calls"} <= rows.keys()
        assert {
            f"{router}, {route}" for router in ROUTERS for route in ("edge accepted", "escalated")
        } <= rows.keys()
        assert rows["bare model"]["times_bare"] == 1
        assert all(0 < row["min_us"] <= row["median_us"] <= row["max_us"] for row in rows.values())
    assert found["beside cascadeflow"].keys() == {"invoke", "ainvoke"}
