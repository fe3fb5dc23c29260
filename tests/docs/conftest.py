"""What pages do to the process ends with their test."""

import pytest

from confroute import registry
from confroute.models import catalog


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """A page that registers a class of its own does so for itself: other tests would record and fit that signal too."""
    registry.entries()
    for name in ("_entries", "_by_object"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


@pytest.fixture(autouse=True)
def smallest_edge(monkeypatch):
    """The pages' edge, half a gigabyte of weights, is the smallest model of the catalogue here; what they show holds for both."""
    find = catalog.find
    monkeypatch.setattr(
        catalog, "find", lambda name: find(name.replace("qwen2.5-coder-0.5b", "smollm2-135m"))
    )
