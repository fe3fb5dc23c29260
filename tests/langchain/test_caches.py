"""LangChain's answer caches: evidence stays evidence, and what others cached stays theirs."""

from __future__ import annotations

import pytest
from langchain_core.caches import BaseCache
from langchain_core.globals import set_llm_cache
from langchain_core.load import dumps, loads

from confroute import Cascade, SelfConsistency, TokenLogprob
from confroute.hosts.model import ModelCall
from confroute.testing import ScriptedModel, wire
from langchain_confroute import ChatConfRoute, extract_token_logprobs
from langchain_confroute.testing import ScriptedChat

# Reading answers back is beta in LangChain, as are its events.
pytestmark = pytest.mark.filterwarnings("ignore:.*beta")


def decision_of(message):
    return message.response_metadata["confroute"]


class Written(BaseCache):
    """Keeps answers as text, as caches in files and databases do."""

    def __init__(self):
        self.kept = {}

    def lookup(self, prompt, llm_string):
        found = self.kept.get((prompt, llm_string))
        return None if found is None else [loads(one, allowed_objects="all") for one in found]

    def update(self, prompt, llm_string, return_val):
        self.kept[prompt, llm_string] = [dumps(one) for one in return_val]

    def clear(self, **kwargs):
        self.kept.clear()


@pytest.fixture
def cache():
    made = Written()
    set_llm_cache(made)
    yield made
    set_llm_cache(None)


@pytest.mark.usefixtures("cache")
async def test_a_cached_draft_keeps_its_evidence(accepting, edge):
    """The answer's copy lost its log-probabilities, the cached one did not; nobody else is given either."""
    answers = [accepting.invoke("q"), await accepting.ainvoke("q")]
    plain = edge.invoke("q")
    for answer in answers:
        assert decision_of(answer)["uncertainty"] == pytest.approx(0.2)
        assert extract_token_logprobs(answer) is None
    assert len(edge.seen) == 2  # the draft once, the plain call once
    assert not {"confroute", "logprobs"} & set(plain.response_metadata)


def test_every_copy_has_a_key_of_its_own(accepting):
    """Draft, watched draft, a signal's prompt and samples are told apart from the model as it was given."""
    tier = accepting._plan.tiers["edge"]
    prompt = ModelCall(role="prompt", logprobs=True, max_tokens=8)
    copies = [
        *(tier.source, tier.form(prompt), tier.draft(), tier.draft(3)),
        *(tier.sampler(0.7), tier.sampler(1.0)),
    ]
    keys = [copy._get_llm_string() for copy in copies]
    assert len(set(keys)) == len(keys)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("how", ["stream", "astream", "v3"])
async def test_samples_differ_in_every_form_of_call(cloud, how):
    """In streams and in LangChain's own model run, as in plain calls."""
    edge = ScriptedChat(script=ScriptedModel(["4"], samples=["5", "6", "7"], name="small"), model="small")
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(SelfConsistency(n=3, step=3), 0.5))
    for _ in range(2):
        if how == "stream":
            *_, last = model.stream("2 + 2?")
        elif how == "astream":
            *_, last = [chunk async for chunk in model.astream("2 + 2?")]
        else:
            last = model.stream_events("2 + 2?", version="v3").output
        assert last.response_metadata["confroute"]["uncertainty"] == 1.0


class Ollama(wire.RequestHandler):
    """One answer with the log-probabilities that newer Ollama servers send."""

    # Keeps no connection open, which a client that is only collected would leave behind.
    protocol_version = "HTTP/1.0"

    def respond(self, body):
        logprobs = [{"token": "four", "logprob": -0.25, "bytes": [102]}] if body.get("logprobs") else None
        self.send_json(
            {
                "model": "o",
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": "four"},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 3,
                "eval_count": 1,
                "logprobs": logprobs,
            }
        )


class OllamaServer(wire.LoopbackServer):
    """At the root, not under /v1."""

    handler = Ollama


@pytest.fixture
def ollama():
    with OllamaServer() as running:
        yield running


def test_log_probabilities_that_no_cache_can_read_back_are_not_cached(cache, ollama, cloud):
    """Ollama's are objects which LangChain writes but cannot load: the draft goes past the cache."""
    chat = pytest.importorskip("langchain_ollama").ChatOllama
    edge = chat(model="o", base_url=ollama.url.removesuffix("/v1"))
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.5))
    for _ in range(2):
        assert decision_of(model.invoke("q"))["uncertainty"] == pytest.approx(0.25)
    assert len(ollama.bodies) == 2
    assert not cache.kept
