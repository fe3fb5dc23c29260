"""Execute a notebook of examples/ and read its outputs; `python tests/examples/notebooks.py` stores them anew."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
# Seconds differ from run to run, and a float's last digits from processor to processor.
_NUMBER = re.compile(r"\d+(\.\d+)?")


def executed(path: Path) -> nbformat.NotebookNode:
    """A copy of the notebook with fresh outputs, run in its own folder; without warnings, which name paths, and times."""
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def shown(notebook: nbformat.NotebookNode) -> list[str]:
    """What each code cell shows, as text, every number replaced; HTML as its length in tags."""
    return [
        _NUMBER.sub("#", "\n".join(_text(output) for output in cell.outputs))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _text(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    if "text/html" in data:
        return " ".join(re.findall(r"<(\w+)", data["text/html"]))
    return data.get("text/plain", output.get("evalue", ""))


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        nbformat.write(executed(FOLDER / name), FOLDER / name)
        print(name)
