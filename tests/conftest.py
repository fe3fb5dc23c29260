"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    Limits,
    Message,
    Request,
    SelfConsistency,
    Threshold,
    TokenLogprob,
)
from confroute.errors import ModelError
from confroute.models import chat_format
from confroute.testing import Reply, ScriptedCalls, ScriptedModel, ScriptedServer, faults
from confroute.types import Usage

# As in the Makefile, for tests that are run without it: torch reads it once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["confroute.testing.plugin"]

# How long one example takes says more of what else the machine does than of the code.
settings.register_profile("confroute", deadline=None)
settings.load_profile("confroute")


# Requests, calls and policies of tests of the core, without a host.
ONCE = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}
SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-0.5)
# A grey zone in which samples are drawn, and a rule that keeps private text on the edge.
GREY = Cascade(
    gates=(
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
        Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
    ),
    rules=(KeepPrivate(patterns=("secret",)),),
    on_cloud_error="edge",
)


def ask(text="What is 2 + 2?", **given):
    """A request of one user message."""
    return Request(messages=(Message(role="user", text=text),), **given)


def calls_of(*, edge=SURE, samples=(), cloud="four"):
    """Calls of scripted models."""
    return ScriptedCalls(
        models={"edge": ScriptedModel([edge], samples=samples), "cloud": ScriptedModel([cloud])}
    )


class ListingHandler(ScriptedServer.handler):
    """Lists models, where the server has a list, and gives as many answers to one request as it asks for, where that is set."""

    def respond(self, body):
        """Answer a POST."""
        if not (self.served.several and body.get("n")):
            super().respond(body)
            return
        choices = [
            {"index": at, "message": {"role": "assistant", "content": f"Robot {at}"}, "finish_reason": "stop"}
            for at in range(body["n"])
        ]
        self.send_json(chat_format.completion(body, choices, Usage(input_tokens=7, output_tokens=body["n"])))

    def do_GET(self):  # noqa: N802  http.server's name
        """Answer a GET."""
        if self.served.listed is None:
            self.fail(501, "no GET here")
        else:
            self.send_json({"object": "list", "data": self.served.listed})


class OpenAIServer(ScriptedServer):
    """An OpenAI-compatible chat server on loopback that gives set answers and keeps what it was sent."""

    handler = ListingHandler

    def __init__(self):
        """Say "Paris." until told otherwise."""
        super().__init__(ScriptedModel())
        self.answer, self.logprob, self.status, self.respond = "Paris.", -0.01, 200, None
        self.listed, self.several = None, False

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


# Local models: one real small one, and tiny random ones written to disk. torch is imported where one is made.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_tokenizer(template: str | None = TEMPLATE) -> Any:
    """Byte-level tokenizer with hardly any merges: characters beyond ASCII span tokens, and so do stop strings."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat sat on the mat", "user assistant system"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def write_tiny_llama(
    folder: Path, *, template: str | None = TEMPLATE, scale: float = 1.0, tokenizer: bool = True
) -> Path:
    """A Llama of about 50 000 random weights; a larger `scale` makes it surer of itself."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tiny_tokenizer(template)
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=made.eos_token_id,
        bos_token_id=None,
        pad_token_id=made.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = LlamaForCausalLM(config)
        network.lm_head.weight.data.mul_(scale)
    network.save_pretrained(folder)
    if tokenizer:
        made.save_pretrained(folder)
    return folder


def write_tiny_bert(folder: Path, *, labels: tuple[str, ...] = ()) -> Path:
    """A random BERT; with labels a classifier, whose rows belong to the lower-case labels wherever they stand."""
    torch = pytest.importorskip("torch")
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    made = tiny_tokenizer(None)
    ids = [(token, made.convert_tokens_to_ids(token)) for token in SPECIAL]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{SPECIAL[1]} $A {SPECIAL[2]}",
        pair=f"{SPECIAL[1]} $A {SPECIAL[2]} $B:1 {SPECIAL[2]}:1",
        special_tokens=ids,
    )
    config = BertConfig(
        vocab_size=len(made),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        id2label=dict(enumerate(labels or ("none",))),
        label2id={label: index for index, label in enumerate(labels or ("none",))},
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        network = (BertForSequenceClassification if labels else BertModel)(config)
        if labels:
            rows = torch.randn(len(labels), 32)
            order = sorted(range(len(labels)), key=lambda index: labels[index].lower())
            network.classifier.weight.data[order] = rows
    network.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_bert() -> Callable[..., Path]:
    """`write_tiny_bert`: writes a tiny random encoder or classifier into a folder and returns it."""
    return write_tiny_bert


@pytest.fixture
def encoder_folder(make_bert: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny random sentence-transformers folder."""
    folder = make_bert(tmp_path / "encoder")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Path]:
    """`write_tiny_llama`: writes a tiny random model into a folder and returns it."""
    return write_tiny_llama


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random chat model."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"), scale=4.0)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Any:
    """A tiny random chat model."""
    from confroute.models.local import LocalModel

    return LocalModel.load(tiny_folder)


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The real small model, where it can be had."""
    pytest.importorskip("torch")
    from confroute.models.local import LocalModel

    try:
        return LocalModel.load("smollm2-135m")
    except (ModelError, ImportError) as error:
        pytest.skip(f"smollm2-135m cannot be had here: {error}")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every decoding step, each of which takes at least 5 ms."""
    from confroute.models import decoding

    taken: list[int] = []
    real = decoding.Decoder.step

    def slow(self: Any) -> Any:
        taken.append(1)
        time.sleep(0.005)
        return real(self)

    monkeypatch.setattr(decoding.Decoder, "step", slow)
    return taken
