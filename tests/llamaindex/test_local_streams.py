"""Streams of a chat engine over a folder: a local edge, and a cloud behind an OpenAI-compatible server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_index.core")

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Prefix, Threshold, TokenLogprob, record
from confroute.testing import ModelServer
from llamaindex_confroute import ConfRouteLLM, LocalEmbedding, LocalLLM

NAME = "smollm2-135m"
FOLDER = Path(__file__).parents[2] / "examples" / "ferry"
QUESTION = "What does a bicycle cost?"
pytestmark = [pytest.mark.local, pytest.mark.slow, pytest.mark.timeout(600)]


def likened(server, **fields):
    """LlamaIndex's client of OpenAI's protocol, which samples unless it is told not to."""
    return OpenAILike(
        model=NAME,
        api_base=server.url,
        api_key="none",
        is_chat_model=True,
        temperature=0.0,
        timeout=120,
        max_retries=0,
        **fields,
    )


@pytest.fixture(scope="module")
def server():
    """The model behind OpenAI's format."""
    with ModelServer(NAME, max_tokens=48) as running:
        yield running


@pytest.fixture(scope="module")
def index():
    """The folder of the examples, by real embeddings; without the paths of files, which the model would read."""
    Settings.tokenizer = str.split
    documents = SimpleDirectoryReader(FOLDER, file_metadata=lambda _: {}).load_data()
    return VectorStoreIndex.from_documents(documents, embed_model=LocalEmbedding())


def policy(threshold, *, commit=None, cut=1e9):
    """With a prefix where `commit` is given, in nats a token."""
    prefix = (
        None
        if commit is None
        else Prefix(commit=Threshold(value=commit), cut=Threshold(value=cut), tokens=3, least=2)
    )
    return Cascade(gates=Cascade.of(TokenLogprob(), threshold).gates, prefix=prefix, lacking=None)


def asked(index, llm, steps):
    """The streamed answer, how many decoding steps had been taken when each of its pieces came, and the decision."""
    engine = index.as_chat_engine(chat_mode="context", llm=llm, similarity_top_k=1)
    pieces = []
    with record() as decisions:
        for token in engine.stream_chat(QUESTION).response_gen:
            pieces.append((token, len(steps)))
    (decision,) = decisions
    return "".join(text for text, _ in pieces), [at for _, at in pieces], decision


@pytest.mark.parametrize(("threshold", "route"), [(1e9, "edge"), (0.0, "cloud")])
def test_verified(index, server, steps, threshold, route):
    """A kept answer comes at once; a rejected one is never seen, and the cloud's comes as it is written."""
    edge = LocalLLM(model=NAME, max_tokens=48)
    sent = len(server.bodies)
    router = ConfRouteLLM(edge=edge, cloud=likened(server), policy=policy(threshold))
    text, taken, decision = asked(index, router, steps)
    assert (decision.route, decision.stage) == (route, "draft")
    assert len(text.split()) > 3
    assert len(server.bodies) - sent == (0 if route == "edge" else 1)
    assert decision.usage["edge"].output_tokens > 3
    if route == "edge":
        assert taken[0] == taken[-1]


@pytest.mark.parametrize("edge", ["local", "served"])
def test_committed_while_it_is_written(index, server, steps, edge):
    """The same words as the verified answer, the first of them before the last were made."""
    llm = LocalLLM(model=NAME, max_tokens=48) if edge == "local" else likened(server)
    cloud = likened(server, max_tokens=12)
    router = ConfRouteLLM(edge=llm, cloud=cloud, policy=policy(1e9, commit=1e8))
    text, taken, decision = asked(index, router, steps)
    assert (decision.route, decision.stage) == ("edge", "prefix")
    whole, at_once, verified = asked(index, ConfRouteLLM(edge=llm, cloud=cloud, policy=policy(1e9)), steps)
    assert text == whole
    assert verified.stage == "draft"
    assert taken[0] < taken[-1]
    assert at_once[0] == at_once[-1]


@pytest.mark.parametrize("edge", ["local", "served"])
def test_cut_off_and_answered_by_the_cloud(index, server, steps, edge):
    """The edge stops after two tokens, its connection closed; one answer is shown."""
    llm = LocalLLM(model=NAME, max_tokens=48) if edge == "local" else likened(server)
    cloud = likened(server, max_tokens=12)
    left = server.abandoned
    router = ConfRouteLLM(edge=llm, cloud=cloud, policy=policy(1e9, commit=0.0, cut=0.0))
    text, _, decision = asked(index, router, steps)
    assert (decision.route, decision.stage) == ("cloud", "prefix")
    assert decision.usage["edge"].output_tokens <= 3
    assert len(text.split()) > 2
    if edge == "served":
        assert server.abandoned == left + 1
