"""Log-probabilities, usage and finish reasons, from what providers really return."""

import math
from types import SimpleNamespace

import pytest
from llama_index.core.base.llms.types import CompletionResponse, LogProb
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, SelfConsistency, TokenLogprob
from confroute.types import Usage
from llamaindex_confroute import extract_token_logprobs
from llamaindex_confroute._models import can_sample, for_sample
from llamaindex_confroute._reading import finish_of, usage_of

USER = [ChatMessage(role="user", content="Which city?")]


def response(raw=None, text="4 2", **fields):
    """A chat response with this raw answer."""
    return ChatResponse(message=ChatMessage(role="assistant", content=text), raw=raw, **fields)


@pytest.mark.parametrize(
    "raw",
    [
        {
            "choices": [
                {"logprobs": {"content": [{"token": "4", "logprob": -0.5}, {"token": " 2", "logprob": -1}]}}
            ]
        },
        SimpleNamespace(
            choices=[
                SimpleNamespace(
                    logprobs=SimpleNamespace(
                        content=[
                            SimpleNamespace(token="4", logprob=-0.5),
                            SimpleNamespace(token=" 2", logprob=-1.0),
                        ]
                    )
                )
            ]
        ),
        {"choices": [{"logprobs": {"tokens": ["4", " 2"], "token_logprobs": [-0.5, -1.0]}}]},
        {"logprobs": [{"token": "4", "logprob": -0.5}, {"token": " 2", "logprob": -1.0}]},
        {"logprobs": {"content": [{"token": "4", "logprob": -0.5}, {"token": " 2", "logprob": -1.0}]}},
    ],
    ids=["openai dict", "openai object", "openai text completion", "ollama", "local"],
)
def test_shapes(raw):
    """Every shape there is."""
    assert extract_token_logprobs(response(raw)) == (-0.5, -1.0)
    assert extract_token_logprobs(CompletionResponse(text="4 2", raw=raw)) == (-0.5, -1.0)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        "text",
        {"choices": []},
        {"choices": [{"logprobs": {"content": []}}]},
        {"choices": [{"logprobs": None}]},
    ],
)
def test_none(raw):
    """None, not an empty tuple that could be averaged."""
    assert extract_token_logprobs(response(raw, logprobs=[])) is None


def test_a_missing_value_is_no_number():
    """Leaving it out would pass the rest off as the whole answer."""
    raw = {"choices": [{"logprobs": {"token_logprobs": [None, -1.0]}}]}
    first, second = extract_token_logprobs(response(raw))
    assert (math.isnan(first), second) == (True, -1.0)


def test_alternatives_are_not_the_answer():
    """`ChatResponse.logprobs` holds the likeliest tokens, which need not be the drawn ones."""

    def places(*tokens):
        return [[LogProb(token=token, logprob=value) for token, value in place] for place in tokens]

    drawn = places([("5", -0.1), ("4", -2.5)], [(" 2", -0.2)])
    assert extract_token_logprobs(response(logprobs=drawn)) == (-2.5, -0.2)
    assert extract_token_logprobs(response(logprobs=places([("5", -0.1)], [(" 2", -0.2)]))) is None
    assert extract_token_logprobs(response(logprobs=places([("4", -0.1)]))) is None


def test_usage_and_finish():
    """OpenAI's, Anthropic's and Ollama's words for them."""
    assert usage_of(response({"usage": {"prompt_tokens": 3, "completion_tokens": 2}})).total_tokens == 5
    assert usage_of(response({"usage": {"input_tokens": 3, "output_tokens": 2}})).total_tokens == 5
    assert usage_of(response(additional_kwargs={"prompt_tokens": 1, "completion_tokens": 1})) == Usage(
        input_tokens=1, output_tokens=1
    )
    assert usage_of(response({"usage": None})) is None
    assert finish_of(response({"choices": [{"finish_reason": "length"}]})) == "length"
    assert finish_of(response({"done_reason": "stop"})) == "stop"
    assert finish_of(response(None)) == "unknown"


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
    assert [(body["temperature"], body["seed"]) for body in samples] == [(0.7, 6), (0.7, 7), (0.7, 8)]
    assert edge.additional_kwargs == {"seed": 5}


def test_openai_like_failures(kit, small, openai_server):
    """A server that is overloaded leads to the cloud."""
    openai_server.status = 503
    assert kit.decision(kit.router(small).chat(USER))["stage"] == "fallback"


def test_completion_models_are_asked_in_their_own_way(kit, small):
    """Text completions take a number of alternatives."""
    from llamaindex_confroute._models import for_draft

    assert for_draft(small.model_copy(update={"is_chat_model": False}), {}).kwargs == {"logprobs": 1}


def test_sampling_never_pretends(kit):
    """A model whose temperature cannot be set cannot be sampled; a fixed seed is moved on."""
    from llama_index.core.llms import MockLLM

    from llamaindex_confroute.local import LocalLLM

    assert not can_sample(MockLLM())

    class Frozen(LocalLLM):
        __module__ = "llama_index.llms.google_genai.base"

    assert not can_sample(Frozen(model="m"))
    local = LocalLLM(model="m", seed=3)
    first, second = (for_sample(local, temperature=0.7, number=number, given={}) for number in (0, 1))
    assert (first.llm.temperature, first.llm.seed, second.llm.seed) == (0.7, 4, 5)
    assert (local.temperature, local.seed) == (0.0, 3)
    given = for_sample(local, temperature=0.7, number=1, given={"seed": 9, "temperature": 0.1})
    assert given.kwargs == {"seed": 11, "temperature": 0.7}


def test_logprobs_of_a_whole_answer_count(kit):
    """The mean over the tokens that were drawn."""
    edge = kit.scripted("one two", name="small")
    assert (
        kit.decision(kit.router(edge, policy=Cascade.of(TokenLogprob(), 0.3)).chat(USER))["uncertainty"]
        == 0.05
    )
