"""The registry between values and their views."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from confroute import Decision, display


@pytest.mark.parametrize("name", display._MODULES)
def test_every_entry_names_a_class_and_the_module_that_draws_it(name: str) -> None:
    """A class that was moved or a view that no longer registers would first be noticed in somebody's notebook."""
    module, _, kind = name.rpartition(".")
    shown = getattr(import_module(module), kind)
    import_module(display._MODULES[name])
    assert issubclass(shown, display.Displayable)
    assert shown in display._pages


def test_a_value_loads_its_own_view_only_when_it_is_shown() -> None:
    """Nothing is drawn, so nothing is loaded, until a value is printed; and then not the views of fits or runs."""
    code = """
import sys
from confroute import Decision
from confroute.observe import Trace
trace = Trace([Decision(route="edge", stage="draft", reason="kept")])
before = {name for name in sys.modules if name.startswith("confroute.views")}
print(before, repr(trace), "confroute.views.decision" in sys.modules, "confroute.views.fit" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() <1 decision: edge 1; 0.00 s> True False\n"


def test_a_subclass_is_shown_as_its_base_is() -> None:
    """Whoever derives from a decision need not register it."""

    class Own(Decision):
        __slots__ = ()

    assert repr(Own(route="edge", stage="draft", reason="kept")).startswith("<Decision edge")


def test_a_class_without_a_view_says_so() -> None:
    """A mistake in the class, not something to draw around."""

    class Bare(display.Displayable):
        __slots__ = ()

    with pytest.raises(LookupError, match=r"Bare has no view: call confroute\.display\.register"):
        repr(Bare())
