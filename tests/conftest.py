"""Fixtures for all tests."""

import asyncio
import gc
import inspect
import os
import sys
import threading

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


# Where a test waits for what has to happen: long enough for any machine, and no test takes so long unless it fails.
PATIENCE_S = 20


class Meeting:
    """Where a number of calls wait for each other: calls that are made one after the other never all arrive."""

    def __init__(self, size):
        """Wait for `size` threads, or for as many tasks."""
        self.barrier = threading.Barrier(size, timeout=PATIENCE_S)
        self.missing, self.complete = size, asyncio.Event()

    def wait(self):
        """Arrive in a thread."""
        self.barrier.wait()

    async def await_all(self):
        """Arrive in a task."""
        self.missing -= 1
        if self.missing == 0:
            self.complete.set()
        await asyncio.wait_for(self.complete.wait(), PATIENCE_S)


class Silence:
    """Calls that never answer: whoever returns from one has given it up."""

    def __init__(self):
        """Nobody waits yet."""
        self.over, self.threads = threading.Event(), []

    def wait(self):
        """Wait in a thread until the test is over."""
        self.threads.append(threading.current_thread())
        self.over.wait(PATIENCE_S)
        raise ConnectionError("nobody gave up waiting before the test was over")

    async def await_end(self):
        """Wait in a task that has to be cancelled."""
        await asyncio.sleep(PATIENCE_S)
        raise ConnectionError("nobody gave up waiting")

    def end(self):
        """Let the threads that were abandoned end, that none of them speaks up in another test."""
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)


@pytest.fixture
def meeting():
    """The class `Meeting`."""
    return Meeting


@pytest.fixture
def silence():
    """Calls that never answer, ended after the test."""
    calls = Silence()
    yield calls
    calls.end()


@pytest.fixture
def until():
    """Wait for what another thread or task does."""

    async def wait(holds):
        for _ in range(PATIENCE_S * 200):
            if holds():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it never came to that")

    return wait


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
