"""Scripted models behind LlamaIndex's interface, and a host without network and without leftovers."""

from types import SimpleNamespace

import llama_index.core
import pytest
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation import root_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import TextNode

from confroute import Cascade, Limits, TokenLogprob
from confroute.testing import Reply, ScriptedModel
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

SURE, UNSURE = -0.05, -1.0
ONCE = Limits(attempts=1)


def pytest_configure(config):
    """Let the host's own warnings pass, by name."""
    for line in (
        # `Memory` opens a database in memory and never closes it; the collector finds it in any test.
        "ignore:.*aiosqlite.core.Connection:ResourceWarning",
        "ignore:Exception in thread .*_connection_worker_thread:pytest.PytestUnhandledThreadExceptionWarning",
        # Workflows list the attributes of agents, and `StructuredLLM` calls `.json()`.
        "ignore:The `(__fields__|__fields_set__|json)`:pydantic.warnings.PydanticDeprecatedSince20",
        "ignore:Accessing the 'model_:pydantic.warnings.PydanticDeprecatedSince211",
        # The ReAct agent asks its workflow whether it runs.
        "ignore:is_running called from within a step:DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", line)


def scripted(*replies, name, samples=(), **fields):
    """An LLM that gives `replies` in turn; a string is a sure answer."""
    return ScriptedLLM(model=ScriptedModel(list(replies), samples=list(samples), name=name), **fields)


class HeldLLM(ScriptedLLM):
    """An LLM that waits, in each of its calls, at a place of the test's own, in a thread or in a task."""

    samples_only: bool = False
    _place: SimpleNamespace = PrivateAttr()

    def _held(self, kwargs):
        return bool(kwargs.get("temperature")) or not self.samples_only

    def chat(self, messages, **kwargs):
        if self._held(kwargs):
            self._place.thread()
        return super().chat(messages, **kwargs)

    async def achat(self, messages, **kwargs):
        if self._held(kwargs):
            await self._place.task()
        return await super().achat(messages, **kwargs)

    def complete(self, prompt, formatted=False, **kwargs):
        self._place.thread()
        return super().complete(prompt, formatted, **kwargs)

    async def acomplete(self, prompt, formatted=False, **kwargs):
        await self._place.task()
        return await super().acomplete(prompt, formatted, **kwargs)

    def stream_chat(self, messages, **kwargs):
        self._place.thread()
        return super().stream_chat(messages, **kwargs)


def held(*replies, thread=None, task=None, samples=(), **fields):
    """An edge that calls `thread` or awaits `task` before it answers; with `samples_only`, not before its draft."""
    script = ScriptedModel(list(replies), samples=list(samples), name="small")
    llm = HeldLLM(model=script, **fields)
    llm._place = SimpleNamespace(thread=thread, task=task)
    return llm


def sure(text="edge says this", **fields):
    """An edge that is certain."""
    return scripted(Reply(text=text, logprob=SURE), name="small", **fields)


def unsure(text="edge may be wrong", **fields):
    """An edge that is not."""
    return scripted(Reply(text=text, logprob=UNSURE), name="small", **fields)


def cloud(text="cloud says that", **fields):
    """The large model."""
    return scripted(text, name="large", **fields)


def down(error=None, *, name="small"):
    """A model that fails."""
    return scripted(Reply(fault=error or ConnectionError("refused")), name=name)


def router(edge=None, large=None, *, policy=None, **kwargs):
    """A router that keeps answers of at most 0.3 nats a token."""
    kwargs = {"edge_limits": ONCE, "cloud_limits": ONCE, **kwargs}
    return ConfRouteLLM(
        edge=edge or sure(),
        cloud=large or cloud(),
        policy=policy or Cascade.of(TokenLogprob(), 0.3),
        **kwargs,
    )


def decision_of(response):
    """The decision that a response carries."""
    return response.additional_kwargs["confroute"]


class Seen(BaseEventHandler):
    """Keeps every event."""

    events: list

    @classmethod
    def class_name(cls):
        return "Seen"

    def handle(self, event, **_):
        self.events.append(event)

    def of(self, kind):
        """Events of one class."""
        return [event for event in self.events if event.class_name() == kind]


@pytest.fixture
def kit():
    """The functions above: modules of tests cannot import one another."""
    return SimpleNamespace(
        scripted=scripted,
        held=held,
        sure=sure,
        unsure=unsure,
        cloud=cloud,
        down=down,
        router=router,
        decision=decision_of,
    )


@pytest.fixture
def seen():
    """Every event of LlamaIndex's instrumentation."""
    handler = Seen(events=[])
    root_dispatcher.add_event_handler(handler)
    yield handler
    root_dispatcher.event_handlers.remove(handler)


@pytest.fixture(autouse=True)
def clean_host(monkeypatch):
    """No state of one test in another, and a tokenizer that needs no download."""
    monkeypatch.setattr(llama_index.core, "global_tokenizer", str.split)
    for name in ("_llm", "_embed_model", "_callback_manager", "_tokenizer", "_node_parser", "_prompt_helper"):
        monkeypatch.setattr(Settings, name, None)
    Settings.embed_model = MockEmbedding(embed_dim=4)


@pytest.fixture
def index():
    """Three short texts."""
    texts = ("Paris is the capital of France.", "Rome is the capital of Italy.", "Bern lies on the Aare.")
    return VectorStoreIndex(nodes=[TextNode(text=text) for text in texts])
