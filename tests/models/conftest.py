"""A conversation for the tests of local models."""

import pytest

from confroute.types import Message


@pytest.fixture
def ask() -> list[Message]:
    """A short conversation."""
    return [Message(role="user", text="Where did the cat sit?")]
