"""Log-probabilities, usage and finish reasons, from what providers really return."""

from types import SimpleNamespace

import httpx
import pytest
from llama_index.core.base.llms.types import CompletionResponse, LogProb
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, SelfConsistency, TokenLogprob, record
from confroute.hosts.model import ModelCall
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from confroute.types import Usage
from llamaindex_confroute import ConfRouteLLM, extract_token_logprobs
from llamaindex_confroute.models import ChildModel, can_sample
from llamaindex_confroute.responses import to_generation
from llamaindex_confroute.testing import ScriptedLLM

USER = [ChatMessage(role="user", content="Which city?")]
ENTRIES = [{"token": "4", "logprob": -0.5}, {"token": " 2", "logprob": -1.0}]


def response(raw=None, text="4 2", **fields):
    """A chat response with this raw answer."""
    return ChatResponse(message=ChatMessage(role="assistant", content=text), raw=raw, **fields)


@pytest.mark.parametrize(
    "raw",
    [
        {"choices": [{"logprobs": {"content": ENTRIES}}]},
        SimpleNamespace(choices=[SimpleNamespace(logprobs=SimpleNamespace(content=ENTRIES))]),
        {"choices": [{"logprobs": {"tokens": ["4", " 2"], "token_logprobs": [-0.5, -1.0]}}]},
        {"logprobs": ENTRIES},
    ],
    ids=["dict", "object", "text completion", "ollama"],
)
def test_read_from_raw(raw):
    """Of chats and completions; the shapes there are stand in tests/models/test_provider_answers.py."""
    assert extract_token_logprobs(response(raw)) == (-0.5, -1.0)
    assert extract_token_logprobs(CompletionResponse(text="4 2", raw=raw)) == (-0.5, -1.0)


@pytest.mark.parametrize("raw", [None, "text", {"choices": [{"logprobs": {"token_logprobs": [None, -1.0]}}]}])
def test_what_is_missing_is_not_invented(raw):
    """None, not an empty tuple that could be averaged, and not the rest of the tokens for the whole answer."""
    assert extract_token_logprobs(response(raw, logprobs=[])) is None


def test_alternatives_are_not_the_answer():
    """`ChatResponse.logprobs` holds the likeliest tokens, which need not be the drawn ones."""

    def places(*tokens):
        return [[LogProb(token=token, logprob=value) for token, value in place] for place in tokens]

    drawn = places([("5", -0.1), ("4", -2.5)], [(" 2", -0.2)])
    assert extract_token_logprobs(response(logprobs=drawn)) == (-2.5, -0.2)
    assert extract_token_logprobs(response(logprobs=places([("5", -0.1)], [(" 2", -0.2)]))) is None
    assert extract_token_logprobs(response(logprobs=places([("4", -0.1)]))) is None


def test_usage_stands_in_raw_or_beside_the_message():
    """As OpenAI and Ollama have it."""
    for given in (
        response({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        response(additional_kwargs={"prompt_tokens": 3, "completion_tokens": 2}),
    ):
        assert to_generation(given, model="m").usage == Usage(input_tokens=3, output_tokens=2)
    assert to_generation(response({"usage": None}), model="m").usage is None


@pytest.fixture
def small(openai_server):
    """The real OpenAI integration before the loopback server."""
    return OpenAILike(
        model="small", api_base=openai_server.url, api_key="k", is_chat_model=True, max_retries=0
    )


def test_openai_like_edge(kit, small, openai_server):
    """Asked for log-probabilities in the draft, not in a forced answer; its own request as the user set it."""
    llm = kit.router(small)
    decision = kit.decision(llm.chat(USER, max_tokens=9))
    assert (decision["route"], decision["uncertainty"], decision["usage"]["edge"]["input_tokens"]) == (
        "edge",
        0.01,
        7,
    )
    llm.chat(USER, confroute_route="edge")
    drafted, forced = openai_server.bodies
    assert (drafted["logprobs"], drafted["top_logprobs"], drafted["max_tokens"]) == (True, 1, 9)
    assert "logprobs" not in forced
    assert small.logprobs is None


async def test_openai_like_streams(kit, small, openai_server):
    """Native chunks of a forced route; the last one carries the decision."""
    openai_server.answer = "Paris is large."
    llm = kit.router(small)
    chunks = [chunk async for chunk in await llm.astream_chat(USER, confroute_route="edge")]
    assert "".join(chunk.delta for chunk in chunks) == "Paris is large."
    assert kit.decision(chunks[-1])["usage"]["edge"]["output_tokens"] == 3
    assert openai_server.bodies[0]["stream"] is True


def test_openai_like_samples(kit, small, openai_server):
    """At the signal's temperature, each with a seed of its own where one was fixed."""
    edge = small.model_copy(update={"additional_kwargs": {"seed": 5}})
    llm = kit.router(edge, policy=Cascade.of(SelfConsistency(n=3, step=3), 0.4))
    llm.chat(USER)
    draft, *samples = openai_server.bodies
    assert (draft["temperature"], draft["seed"]) == (0.1, 5)
    # The three arrive in any order.
    assert sorted((body["temperature"], body["seed"]) for body in samples) == [(0.7, 6), (0.7, 7), (0.7, 8)]
    assert edge.additional_kwargs == {"seed": 5}


def test_openai_like_failures(kit, small, openai_server):
    """A server that is overloaded leads to the cloud."""
    openai_server.status = 503
    assert kit.decision(kit.router(small).chat(USER))["stage"] == "fallback"


def test_completion_models_are_asked_in_their_own_way(kit, small):
    """Text completions take a number of alternatives."""
    child = ChildModel(small.model_copy(update={"is_chat_model": False}))
    assert child.prepared(ModelCall(role="draft", logprobs=True), {})[1] == {"logprobs": 1}


def sample(number):
    """The call for one sample."""
    return ModelCall(role="sample", drawn=number, temperature=0.7)


def test_sampling_never_pretends(kit):
    """A model whose temperature cannot be set cannot be sampled; a fixed seed is moved on."""
    from llama_index.core.llms import MockLLM

    from llamaindex_confroute.local import LocalLLM

    assert not can_sample(MockLLM())

    class Frozen(LocalLLM):
        __module__ = "llama_index.llms.google_genai.base"

    assert not can_sample(Frozen(model="m"))
    local = LocalLLM(model="m", seed=3, context_window=99)
    first, second = (ChildModel(local).prepared(sample(number), {})[0] for number in (0, 1))
    assert (first.temperature, first.seed, second.seed) == (0.7, 4, 5)
    assert (local.temperature, local.seed) == (0.0, 3)
    given = ChildModel(local).prepared(sample(1), {"seed": 9, "temperature": 0.1})
    assert given[1] == {"seed": 11, "temperature": 0.7}


def test_logprobs_of_a_whole_answer_count(kit):
    """The mean over the tokens that were drawn."""
    edge = kit.scripted("one two", name="small")
    assert (
        kit.decision(kit.router(edge, policy=Cascade.of(TokenLogprob(), 0.3)).chat(USER))["uncertainty"]
        == 0.05
    )


@pytest.mark.parametrize(
    ("inner", "logprob", "route"), [(0.5, -0.2, "edge"), (0.1, -0.2, "edge"), (0.1, -2.0, "cloud")]
)
def test_a_router_as_an_edge_has_evidence(inner, logprob, route):
    """Whichever of its models answers is asked for log-probabilities, as any other edge is."""
    with (
        ScriptedServer(ScriptedModel([Reply(text="middle says", logprob=logprob)])) as server,
        httpx.Client() as client,
    ):
        middle = OpenAILike(
            model="middle",
            api_base=server.url,
            api_key="k",
            is_chat_model=True,
            max_retries=0,
            http_client=client,
        )
        small = ScriptedLLM(model=ScriptedModel([Reply(text="small says", logprob=-0.2)], name="small"))
        nested = ConfRouteLLM(edge=small, cloud=middle, policy=Cascade.of(TokenLogprob(), inner))
        large = ScriptedLLM(model=ScriptedModel(["large says"], name="large"))
        with record() as decisions:
            ConfRouteLLM(edge=nested, cloud=large, policy=Cascade.of(TokenLogprob(), 0.5)).complete("q")
        assert decisions[0].route == route
        assert decisions[0].uncertainty == (-logprob if inner == 0.1 else 0.2)
        nested.complete("q", confroute_route="cloud")
        assert not server.bodies[-1].get("logprobs"), "the router's own calls are as they were"
