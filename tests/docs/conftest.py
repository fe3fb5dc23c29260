"""What pages do to the process ends with their test."""

import pytest

from confroute import registry


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """A page that registers a class of its own does so for itself: other tests would record and fit that signal too."""
    registry.entries()
    for name in ("_entries", "_by_object"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
