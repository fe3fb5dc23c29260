"""Policy files of an earlier version still load: `files/` holds one of each class that could be saved, as it was written then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from confroute import load_policy, save_policy
from confroute.registry import entry_named, entry_of

FILES = sorted((Path(__file__).parent / "files").glob("*.json"))


def same(value: Any, written: Any) -> bool:
    """Whether a loaded value is what was written: the class, and every field that the file names."""
    if isinstance(written, list):
        return len(value) == len(written) and all(map(same, value, written))
    if not isinstance(written, dict):
        return bool(value == written)
    fields = {name: part for name, part in written.items() if name != "class"}
    entry = entry_named(written["class"])
    return (
        entry is not None
        and entry_of(value) is entry
        and all(same(getattr(value, name), part) for name, part in fields.items())
    )


def classes(written: Any) -> set[str]:
    """Names of all classes in a file."""
    if isinstance(written, list):
        return {name for part in written for name in classes(part)}
    if not isinstance(written, dict):
        return set()
    return {written["class"]} | classes([part for name, part in written.items() if name != "class"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_as_it_was_written(path: Path, tmp_path: Path) -> None:
    """Every class is found under the name it had, every field has its value, and what is written now reads the same."""
    written = json.loads(path.read_text(encoding="utf-8"))["policy"]
    policy = load_policy(path)
    assert same(policy, written)
    save_policy(policy, tmp_path / "again.json")
    assert load_policy(tmp_path / "again.json") == policy


def test_every_class_of_then_is_in_a_file() -> None:
    """51 classes could be saved."""
    held = {name for path in FILES for name in classes(json.loads(path.read_text())["policy"])}
    assert len(held) == 51
