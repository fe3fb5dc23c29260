"""Notebooks of examples/ run again and show what is stored in them."""

import importlib.util
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
        assert all(output.output_type != "error" for cell in cells for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_stored(path):
    """Without an error, and with the same kinds of output in every cell."""
    assert shown(executed(path)) == shown(nbformat.read(path, as_version=4))
