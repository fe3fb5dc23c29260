"""Notebooks of examples/ run again and show what is stored in them."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

# The tests are no package: the module beside this one is loaded by its path.
_spec = importlib.util.spec_from_file_location("notebooks", Path(__file__).with_name("notebooks.py"))
notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebooks)
FOLDER, executed, shown = notebooks.FOLDER, notebooks.executed, notebooks.shown
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks_with_stored_outputs():
    """Each has been run, to its end and without an error."""
    assert len(NOTEBOOKS) >= 3
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert any(cell.outputs for cell in cells)
        outputs = [output for cell in cells for output in cell.outputs]
        assert all(output.output_type != "error" for output in outputs)
        # What a notebook shows in a red box.
        assert all(output.get("name") != "stderr" for output in outputs)


def test_the_query_engine_tells_which_of_its_answers_are_wrong():
    """Each answer of the small model is held against the folder, and what is wrong is said to be."""
    path = FOLDER / "query_engine.ipynb"
    folder = "\n".join(text.read_text(encoding="utf-8") for text in (FOLDER.parent / "ferry").glob("*.txt"))
    (ask,) = (cell for cell in nbformat.read(path, as_version=4).cells if "says = {" in cell.source)
    facts = dict(re.findall(r'^    "(.+)": "(.+)",$', ask.source, re.MULTILINE))
    lines = "".join(output.text for output in ask.outputs).split("\n")
    assert len(facts) >= 4
    for question, fact in facts.items():
        assert re.search(rf"\b{fact}\b", folder)
        (at,) = (number for number, line in enumerate(lines) if line.startswith(question))
        said = lines[at].removeprefix(question)
        # An answer may take several lines; the next indented one is the verdict.
        verdict = next(line for line in lines[at + 1 :] if line.startswith("    "))
        said += " ".join(lines[at + 1 : lines.index(verdict, at)])
        assert verdict.endswith("right" if fact in said else f"WRONG, the folder says {fact}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_stored(path):
    """Without an error, and with the same kinds of output in every cell."""
    assert shown(executed(path)) == shown(nbformat.read(path, as_version=4))
