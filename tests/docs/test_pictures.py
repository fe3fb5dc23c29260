"""Pictures and figures are those that their command draws of what is here now."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pictures():
    """The command's own module; scripts of benchmarks/ import each other by plain names."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import pictures

        yield pictures
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_each_picture_is_up_to_date(pictures):
    """After a change of the tables, of the kept decisions or of a drawing: `make pictures`."""
    for name, drawn in pictures.pictures().items():
        stored = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert stored == drawn, f"docs/{name} is not what is drawn now: run `make pictures`"


def test_each_picture_can_be_read(pictures):
    """Well-formed, with its words for screen readers, and no wider than a page of 1,280 pixels has room for."""
    for name, drawn in pictures.pictures().items():
        root = ElementTree.fromstring(drawn)
        assert root.find("{http://www.w3.org/2000/svg}title") is not None, name
        assert float(root.get("width")) <= 960, name


def test_the_figure_of_results_shows_what_its_tables_say(pictures):
    """Our best router, chance and the best published one, of each benchmark."""
    drawn = pictures.overview()
    for bench, rows in pictures.tables().items():
        assert f"{bench}: APGR" in drawn
        shown = {name: value for name, value, _ in rows}
        assert f"{shown['random']:.3f}" in drawn
        assert f"{shown[pictures.BEST]:.3f}" in drawn
    assert drawn.count("best published") == 3
