"""Objects that users name as `MODULE:OBJECT`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from confroute.errors import PolicyError

OLLAMA_URL = "http://127.0.0.1:11434/v1"
EXPECTED = "local:NAME, openai:MODEL, ollama:MODEL or MODULE:OBJECT"


def in_catalogue(name: str) -> bool:
    """Whether `confroute pull` knows a model of this name."""
    from confroute.models.catalog import catalog_entries

    return any(entry.name == name for entry in catalog_entries())


def meant(spec: str) -> str:
    """A hint for who left the "local:" out; empty where that is not it."""
    return f"; did you mean 'local:{spec}'?" if in_catalogue(spec) else ""


def imported(spec: str) -> object:
    """The object of a name such as "my_package.models:judge"; dots behind the colon name attributes.

    Modules of the current folder are found as well, as other command lines do: the folder is put first on `sys.path`.

    Raises
    ------
    PolicyError
        No such module or object.
    """
    module, _, name = spec.partition(":")
    # An installed script has its own folder there in its place; it stays, for what the module imports later.
    if "" not in sys.path and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"model {spec!r} cannot be imported: {error}; expected {EXPECTED}{meant(spec)}"
        raise PolicyError(msg) from error
    return found
