"""How many of our own functions one routed call runs through, in every host, kept and escalated, sync and async.

    python benchmarks/hops.py [--only WORD ...] [--trace] [--json]

Scripted models that answer at once; the third call of a router is counted, so that nothing is built or looked up for the first
time. Only files of `confroute`, `langchain_confroute` and `llamaindex_confroute` count, without the scripted models of their test
kits and all that these call. `calls`: functions called, a generator or coroutine once however often it is resumed. `frames`: the
same with comprehensions and generator expressions, which Python 3.12 makes no frames for. `entries`: `frames` and every
resumption. `files`: files that were entered. `switches`: entries into another file than the entry before. `depth`: most of our
frames on the stack at once. `--trace` prints the entries as a tree, resumptions marked "again", to see where they go.

An earlier version is counted by this script beside its packages: `PYTHONPATH=OLD:OLD/shared python benchmarks/hops.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import _scripted

PACKAGES = ("confroute", "langchain_confroute", "llamaindex_confroute")
NAMELESS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
WARM_UP = 2


def roots() -> dict[str, Path]:
    """Where each package's files lie."""
    return {name: Path(str(spec.origin)).parent for name in PACKAGES if (spec := find_spec(name))}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry into a frame of ours."""

    file: str
    function: str
    depth: int
    resumed: bool


@dataclass(kw_only=True)
class Hops:
    """A profile function that keeps every entry."""

    roots: dict[str, Path] = field(default_factory=roots)
    entries: list[Entry] = field(default_factory=list)
    known: dict[str, str | None] = field(default_factory=dict)
    # Kept: a frame that is freed gives its identity to the next.
    frames: dict[int, FrameType] = field(default_factory=dict)
    depth: int = 0
    in_models: int = 0

    def file(self, path: str) -> str | None:
        """A file's path in its package; None for others' files."""
        if path not in self.known:
            inside = ((name, root) for name, root in self.roots.items() if root in Path(path).parents)
            self.known[path] = next((f"{name}/{Path(path).relative_to(root)}" for name, root in inside), None)
        return self.known[path]

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count an event of `sys.setprofile`."""
        file = self.file(frame.f_code.co_filename)
        if file is None or event not in ("call", "return"):
            return
        step = 1 if event == "call" else -1
        if self.in_models or "/testing" in file:
            self.in_models += step
            return
        if event == "call":
            function = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
            resumed = id(frame) in self.frames
            self.entries.append(Entry(file=file, function=function, depth=self.depth, resumed=resumed))
            self.frames[id(frame)] = frame
        self.depth += step

    def counts(self) -> dict[str, int]:
        """The numbers of the table."""
        frames = [entry for entry in self.entries if not entry.resumed]
        return {
            "calls": sum(not entry.function.endswith(NAMELESS) for entry in frames),
            "frames": len(frames),
            "entries": len(self.entries),
            "files": len({entry.file for entry in self.entries}),
            "switches": sum(a.file != b.file for a, b in pairwise(self.entries)),
            "depth": 1 + max((entry.depth for entry in self.entries), default=-1),
        }

    def tree(self) -> str:
        """Every entry as a line, deeper ones further in."""
        lines = (
            f"{'  ' * entry.depth}{entry.file} {entry.function}{' again' if entry.resumed else ''}"
            for entry in self.entries
        )
        repeats = ((line, len([*equal])) for line, equal in groupby(lines))
        return "\n".join(line if count == 1 else f"{line} x{count}" for line, count in repeats)


def counted(calls: _scripted.Calls) -> Hops:
    """A warm synchronous call."""
    for _ in range(WARM_UP):
        calls.sync()
    hops = Hops()
    sys.setprofile(hops)
    try:
        calls.sync()
    finally:
        sys.setprofile(None)
    return hops


async def acounted(calls: _scripted.Calls) -> Hops:
    """A warm asynchronous call."""
    for _ in range(WARM_UP):
        await calls.asynchronous()
    hops = Hops()
    sys.setprofile(hops)
    try:
        await calls.asynchronous()
    finally:
        sys.setprofile(None)
    return hops


def all_hops(words: Iterable[str] = ()) -> dict[str, Hops]:
    """What is counted, by host, route and form; only where every one of `words` is in that name."""
    found = {}
    for host, calls_of in _scripted.hosts().items():
        for route in _scripted.LOGPROBS:
            for form in ("sync", "async"):
                name = f"{host} {route} {form}"
                if all(word in name.split() for word in words):
                    calls = calls_of(route)
                    found[name] = counted(calls) if form == "sync" else asyncio.run(acounted(calls))
    return found


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="such as: ConfRouteLLM escalated sync"
    )
    parser.add_argument("--trace", action="store_true", help="print every entry, as a tree")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = all_hops(options.only)
    if not found:
        parser.error(
            f"--only {' '.join(options.only)}: no call of {', '.join(_scripted.hosts())} is so called"
        )
    counts = {name: hops.counts() for name, hops in found.items()}
    if options.json:
        print(json.dumps(counts))
        return
    for name, hops in found.items():
        if options.trace:
            print(name, hops.tree(), "", sep="\n")
    columns = [*next(iter(counts.values()))]
    print(f"{'':32}" + "".join(f"{column:>9}" for column in columns))
    for name, row in counts.items():
        print(f"{name:32}" + "".join(f"{row[column]:9}" for column in columns))


if __name__ == "__main__":
    main()
