"""Execute a notebook of examples/ and read its outputs; `python tests/examples/notebooks.py` stores them anew."""

from __future__ import annotations

import copy
import sys
from itertools import groupby
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"


def executed(path: Path) -> nbformat.NotebookNode:
    """A copy of the notebook with fresh outputs, run in its own folder; without warnings, which name paths, and times."""
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def shown(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The kinds of output of each code cell: what a model says, and so its route, depends on the processor's number type.

    Prints of one cell arrive in one piece or in several.
    """
    return [
        [kind for kind, _ in groupby(map(_kind, cell.outputs))]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _kind(output: nbformat.NotebookNode) -> str:
    return " ".join([output.output_type, *sorted(output.get("data", {}))])


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        nbformat.write(executed(FOLDER / name), FOLDER / name)
        print(name)
