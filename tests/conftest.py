"""Fixtures for all tests."""

import asyncio
import gc
import inspect
import os
import sys

import pytest
from hypothesis import settings

from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults
from confroute.types import Usage

# As in the Makefile, for tests that are run without it: torch reads it once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["confroute.testing.plugin"]

# How long one example takes says more of what else the machine does than of the code.
settings.register_profile("confroute", deadline=None)
settings.load_profile("confroute")


class OpenAIServer(ScriptedServer):
    """An OpenAI-compatible chat server on loopback that gives set answers and keeps what it was sent."""

    def __init__(self):
        """Say "Paris." until told otherwise."""
        super().__init__(ScriptedModel())
        self.answer, self.logprob, self.status, self.respond = "Paris.", -0.01, 200, None

    def reply(self, body):
        """The set answer, or what `respond` makes of the request."""
        text, logprob = self.respond(body) if self.respond else (self.answer, self.logprob)
        fault = None if self.status == 200 else faults.status(self.status)
        usage = Usage(input_tokens=7, output_tokens=len(text.split()))
        return Reply(text=text, logprob=logprob, fault=fault, usage=usage), ""


@pytest.fixture(autouse=True)
def own_loop(request):
    """A loop for synchronous tests, closed after them: LlamaIndex makes one where there is none and leaves it open."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="session", autouse=True)
def no_client_left_open():
    """HTTP clients that packages keep in caches, closed while that still works: their `__del__` fails when the interpreter ends."""
    yield
    gc.collect()
    if "httpx" in sys.modules:
        kept = sys.modules["httpx"].Client
        for client in [one for one in gc.get_objects() if issubclass(type(one), kept)]:
            client.close()


@pytest.fixture
def openai_server(monkeypatch):
    """A running `OpenAIServer`; both hosts' OpenAI classes find it through their environment variables."""
    told = OpenAIServer()
    told.start()
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.setenv(name, told.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield told
    told.stop()
