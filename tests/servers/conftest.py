"""Real servers on loopback, started once for all tests, and the real clients of each host before them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from confroute import Router, record
from confroute.models import catalog
from confroute.models.resolution import resolve
from confroute.testing import ScriptedModel

HERE = Path(__file__).parent
CLOUD = "The cloud answers."
FORMS = ("sync", "async", "stream", "astream")
# For the slowest machine; a server that ends before it answers is noticed at once.
START_S = 240


@dataclass(frozen=True, kw_only=True)
class RealServer:
    """A server that runs."""

    url: str
    model: str
    scores: bool
    process: subprocess.Popen[bytes]

    def post(self, **body):
        """The JSON of an answer to a request as it is, without a client."""
        sent = json.dumps({"model": self.model, **body}).encode()
        request = urllib.request.Request(
            f"{self.url}/chat/completions", sent, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@contextmanager
def running(folder, *command, **environment):
    """A server in a process of its own, once it answers; ended in any case."""
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, str(HERE / "serve.py"), *map(str, command)],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process, address(process, log)
        finally:
            process.kill()


def address(process, log):
    """Where it listens, as it says itself, once it is healthy."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        said = re.search(rb"running on (http://127\.0\.0\.1:\d+)", log.read_bytes())
        if said and is_healthy(url := said[1].decode()):
            return f"{url}/v1"
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_bytes()[-3000:].decode(errors='replace')}")


def is_healthy(url):
    """Whether it says so."""
    try:
        with urllib.request.urlopen(f"{url}/health"):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(scope="session")
def gguf():
    """The file of the small model."""
    if not catalog.is_pulled("smollm2-135m"):
        pytest.skip("smollm2-135m is not on this machine: run `confroute pull smollm2-135m`")
    return catalog.find("smollm2-135m").path


@pytest.fixture(scope="session")
def llamacpp(gguf, tmp_path_factory):
    """llama.cpp's server. The model's own template knows no tools: with this one its tool calls are read."""
    pytest.importorskip("xllamacpp", reason="only `make servers-test` installs xllamacpp")
    folder = tmp_path_factory.mktemp("llamacpp")
    command = ("llamacpp", gguf, HERE / "chat_with_tools.jinja", "smollm2")
    with running(folder, *command) as (process, url):
        yield RealServer(url=url, model="smollm2", scores=True, process=process)


@pytest.fixture(scope="session")
def model_folders(gguf, tmp_path_factory):
    """The same weights for transformers: `greedy` as they are, `smollm2` to be sampled from where a temperature is given."""
    from confroute.models.loading import load_gguf

    folder = tmp_path_factory.mktemp("transformers")
    # `transformers serve` cannot read a GGUF file that no config.json stands beside.
    network, tokenizer = load_gguf(gguf, "float32")
    network.save_pretrained(folder / "greedy")
    tokenizer.save_pretrained(folder / "greedy")
    (folder / "smollm2").mkdir()
    for file in (folder / "greedy").iterdir():
        (folder / "smollm2" / file.name).symlink_to(file)
    settings = json.loads((folder / "greedy" / "generation_config.json").read_text())
    (folder / "smollm2" / "generation_config.json").unlink()
    (folder / "smollm2" / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True}))
    return folder


@pytest.fixture(scope="session")
def transformers_serve(request):
    """`transformers serve`, its model loaded."""
    pytest.importorskip("fastapi", reason="only `make servers-test` installs transformers[serving]")
    pytest.importorskip("uvicorn", reason="only `make servers-test` installs transformers[serving]")
    # Not before it is known that they are needed: they take half a gigabyte.
    model_folders = request.getfixturevalue("model_folders")
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HOME": str(model_folders / "hub"),
    }
    with running(model_folders, "transformers", **offline) as (process, url):
        server = RealServer(url=url, model="smollm2", scores=False, process=process)
        server.post(messages=[{"role": "user", "content": "Hello"}], max_tokens=1)
        yield server


@pytest.fixture(params=["llamacpp", "transformers_serve"])
def server(request):
    """Each server."""
    return request.getfixturevalue(request.param)


class ByLangChain:
    """`ChatOpenAI` in `ChatConfRoute`."""

    def __init__(self, server, http, policy, *, max_tokens=40, cloud=CLOUD, url=None, **settings):
        from langchain_openai import ChatOpenAI

        from langchain_confroute import ChatConfRoute
        from langchain_confroute.testing import ScriptedChat

        given = {"temperature": 0.0, "max_retries": 0, "api_key": "none", **settings}
        self.edge = ChatOpenAI(
            model=server.model,
            base_url=url or server.url,
            max_tokens=max_tokens,
            http_client=http[0],
            http_async_client=http[1],
            **given,
        )
        self.router = ChatConfRoute(edge=self.edge, cloud=ScriptedChat.of(cloud), policy=policy)

    async def parts(self, prompt, form):
        """The texts that reach the caller."""
        if form == "sync":
            return [(await asyncio.to_thread(self.router.invoke, prompt)).text]
        if form == "async":
            return [(await self.router.ainvoke(prompt)).text]
        if form == "stream":
            return await asyncio.to_thread(lambda: [chunk.text for chunk in self.router.stream(prompt)])
        return [chunk.text async for chunk in self.router.astream(prompt)]


class ByLlamaIndex:
    """`OpenAILike` in `ConfRouteLLM`."""

    def __init__(self, server, http, policy, *, max_tokens=40, cloud=CLOUD, url=None, **settings):
        from llama_index.llms.openai_like import OpenAILike

        from llamaindex_confroute import ConfRouteLLM
        from llamaindex_confroute.testing import ScriptedLLM

        given = {"temperature": 0.0, "max_retries": 0, "api_key": "none", "is_chat_model": True, **settings}
        given = {"is_function_calling_model": True, **given}
        self.edge = OpenAILike(
            model=server.model,
            api_base=url or server.url,
            max_tokens=max_tokens,
            http_client=http[0],
            async_http_client=http[1],
            **given,
        )
        self.router = ConfRouteLLM(
            edge=self.edge, cloud=ScriptedLLM(model=ScriptedModel([cloud])), policy=policy
        )

    async def parts(self, prompt, form):
        """The texts that reach the caller."""
        from llama_index.core.llms import ChatMessage

        sent = [ChatMessage(role="user", content=prompt)]
        if form == "sync":
            return [(await asyncio.to_thread(self.router.chat, sent)).message.content]
        if form == "async":
            return [(await self.router.achat(sent)).message.content]
        if form == "stream":
            return await asyncio.to_thread(
                lambda: [chunk.delta or "" for chunk in self.router.stream_chat(sent)]
            )
        return [chunk.delta or "" async for chunk in await self.router.astream_chat(sent)]


class ByRouter:
    """`openai:MODEL` in `Router`."""

    def __init__(self, server, http, policy, *, max_tokens=40, cloud=CLOUD, url=None):
        self.edge = resolve(f"openai:{server.model}", base_url=url or server.url, max_tokens=max_tokens)
        self.router = Router(edge=self.edge, cloud=ScriptedModel([cloud]), policy=policy)

    async def parts(self, prompt, form):
        """The texts that reach the caller."""
        if form == "sync":
            return [(await asyncio.to_thread(self.router.ask, prompt)).text]
        if form == "async":
            return [(await self.router.aask(prompt)).text]
        if form == "stream":
            return await asyncio.to_thread(lambda: list(self.router.stream(prompt)))
        return [part async for part in self.router.astream(prompt)]


@pytest.fixture
async def http():
    """HTTP clients that are closed after the test: those that LangChain and LlamaIndex make are not."""
    with httpx.Client() as sync:
        async with httpx.AsyncClient() as aio:
            yield sync, aio


HOSTS = {"langchain": ByLangChain, "llamaindex": ByLlamaIndex, "router": ByRouter}


@dataclass(frozen=True)
class Client:
    """One host with its own client, made of a server, a policy and settings of the edge."""

    name: str
    http: object

    def __call__(self, server, policy, **settings):
        return HOSTS[self.name](server, self.http, policy, **settings)


@pytest.fixture(params=HOSTS)
def client(request, http):
    """Each host with its own client."""
    return Client(request.param, http)


@pytest.fixture(params=FORMS)
def form(request):
    """Each way to call."""
    return request.param


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a caller sees of one call."""

    parts: list[str]
    decision: object

    @property
    def text(self):
        """The whole answer."""
        return "".join(self.parts)


@pytest.fixture
def ask():
    """Make one call; returns what reached the caller, and its one decision."""

    async def made(client, prompt, form="sync"):
        with record() as decisions:
            parts = await client.parts(prompt, form)
        assert len(decisions) == 1
        return Seen(parts=parts, decision=decisions[0])

    return made


@pytest.fixture
def own_server(gguf, tmp_path):
    """A server of llama.cpp's of one test's own, which may end it."""
    pytest.importorskip("xllamacpp", reason="only `make servers-test` installs xllamacpp")
    command = ("llamacpp", gguf, HERE / "chat_with_tools.jinja", "smollm2")
    with running(tmp_path, *command) as (process, url):
        yield RealServer(url=url, model="smollm2", scores=True, process=process)
