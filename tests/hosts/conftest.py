"""A host's model that answers from a script and keeps what it was asked."""

import asyncio
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import pytest

from confroute.hosts.model import ModelFacts
from confroute.types import Generation

WHERE = ContextVar("where", default="nowhere")


@dataclass
class HostedScript:
    """Answers "a0", "a1", ... and refuses, fails or waits as it was told; a stream's chunks are the answer's letters."""

    facts: ModelFacts
    refuses: str = ""
    fails: Exception | None = None
    breaks: Exception | None = None
    meets: int = 0
    calls: list = field(default_factory=list)
    places: list = field(default_factory=list)
    open: int = 0
    most: int = 0

    def __post_init__(self):
        """The barrier at which calls made at the same time meet."""
        self.barrier = threading.Barrier(self.meets) if self.meets else None
        self.lock = threading.Lock()

    @contextmanager
    def asked(self, call):
        """Keep the call and where it was made, or raise."""
        with self.lock:
            self.calls.append(call)
            self.places.append((threading.current_thread(), WHERE.get()))
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            if self.refuses and getattr(call, self.refuses):
                msg = f"400: {self.refuses} is not supported by this model"
                raise ValueError(msg)
            if self.fails is not None:
                raise self.fails
            yield [Generation(text=f"a{call.drawn + one}", raw=call) for one in range(call.n)]
        finally:
            with self.lock:
                self.open -= 1

    def call(self, call):
        """Answer, once all calls that are to be made at the same time are there."""
        with self.asked(call) as answers:
            if self.barrier is not None:
                self.barrier.wait(5)
            return answers

    async def acall(self, call):
        """Answer after a turn of the loop."""
        with self.asked(call) as answers:
            await asyncio.sleep(0.001)
            return answers

    def stream(self, call):
        """The first answer in letters."""
        with self.asked(call) as answers:
            yield from answers[0].text
            if self.breaks is not None:
                raise self.breaks
            yield answers[0]

    async def astream(self, call):
        """The first answer in letters."""
        with self.asked(call) as answers:
            for letter in answers[0].text:
                yield letter
            if self.breaks is not None:
                raise self.breaks
            yield answers[0]


@pytest.fixture
def hosted():
    """Make such a model; facts are given by name."""

    def make(**given):
        own = {name: given.pop(name) for name in list(given) if name in HostedScript.__dataclass_fields__}
        return HostedScript(facts=ModelFacts(**{"model": "small", **given}), **own)

    return make


@pytest.fixture
def where():
    """The context variable that calls are made in."""
    return WHERE
