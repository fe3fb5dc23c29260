"""Servers that refuse log-probabilities, and servers that only mention them, behind each host's real client."""

import httpx
import pytest
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Router, TokenLogprob, record
from confroute.models.openai import OpenAIModel
from confroute.models.resilience import Limits, rejects_logprobs
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
POLICY = Cascade.of(TokenLogprob(), 0.25, on_no_signal="edge")
SETTINGS = {"policy": POLICY, "edge_limits": ONCE, "cloud_limits": ONCE}


@pytest.fixture
def client():
    with httpx.Client() as client:
        yield client


def langchain(url, client):
    edge = ChatOpenAI(model="small", base_url=url, api_key="k", max_retries=0, http_client=client)
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("cloud", name="large"), **SETTINGS)
    return router.invoke


def llamaindex(url, client):
    edge = OpenAILike(
        model="small", api_base=url, api_key="k", max_retries=0, is_chat_model=True, http_client=client
    )
    router = ConfRouteLLM(
        edge=edge, cloud=ScriptedLLM(model=ScriptedModel(["cloud"], name="large")), **SETTINGS
    )
    return router.complete


def plain(url, client):
    router = Router(edge=OpenAIModel(model="small", base_url=url), cloud=ScriptedModel(["cloud"]), **SETTINGS)
    return router.ask


HOSTS = [langchain, llamaindex, plain]


def signals(ask, *texts):
    """The signal, if any, by which each call was decided."""
    with record() as decisions:
        for text in texts:
            ask(text)
    return [decision.signal for decision in decisions]


def serving(refuse):
    model = ScriptedModel([Reply(text="4 it is", logprob=-0.05)], name="small")
    return ScriptedServer(model, refuse=refuse)


REFUSALS = [
    (400, {"message": "logprobs is not supported"}),
    (400, {"message": "Unsupported parameter", "param": "logprobs", "code": "unsupported_parameter"}),
    (403, {"message": "You are not allowed to request logprobs from this model"}),
    (500, {"message": "logprobs is not supported with tools + stream"}),
    (422, {"message": "{'type': 'extra_forbidden', 'loc': ('body', 'logprobs'), 'msg': 'Extra inputs'}"}),
    (400, {"message": "property 'log_probs' is unsupported"}),
    (400, {"message": "Log probabilities are not supported"}),
    (400, {"message": "Request rejected", "param": "log_probs"}),
    (500, {"message": "the model was loaded without log-probs"}),
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("status", "error"), REFUSALS)
def test_refused(client, host, status, error):
    """Asked without, at once, and not asked again by the next calls."""
    with serving(lambda body: (status, error) if body.get("logprobs") else None) as server:
        assert signals(host(server.url, client), "2 + 2?", "3 + 1?") == [None, None]
        asked = [bool(body.get("logprobs")) for body in server.bodies]
        assert asked[-2:] == [False, False]
        assert asked[0]
        assert len(asked) <= 4  # with alternatives, without them, without any, and the second call


BAD = "spam: why is logprobs not supported?"
ECHOES = [
    (400, lambda body: {"message": f"flagged: {body['messages'][-1]['content']}", "code": "content_filter"}),
    (400, lambda body: {"message": f"'msg': 'temperature must not be negative', 'input': {body!r}"}),
    (400, lambda body: {"message": f"'loc': ('body',), 'msg': 'not valid', 'input': {body!r}"}),
    (422, lambda body: {"message": f"logprobs are not the fault: {body!r}", "param": "messages"}),
    (500, lambda body: {"message": f"cannot read {body!r}"}),
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("status", "error"), ECHOES)
def test_mentioned(client, host, status, error):
    """One bad request whose error repeats it: the calls after it have their evidence."""

    def refuse(body):
        return (status, error(body)) if "spam" in str(body["messages"]) else None

    with serving(refuse) as server:
        assert signals(host(server.url, client), "2 + 2?", BAD, "3 + 1?")[::2] == [
            "token_logprob",
            "token_logprob",
        ]
        assert server.bodies[-1]["logprobs"]


class ProviderError(Exception):
    """As client libraries make them."""

    def __init__(self, text="", **fields):
        super().__init__(text)
        for name, value in fields.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (TypeError("create() got an unexpected keyword argument 'logprobs'"), True),
        (ProviderError("top_logprobs must be at most 5", status_code=400), True),
        (
            ProviderError("Extra inputs", status_code=422, body={"detail": [{"loc": ["body", "logprobs"]}]}),
            True,
        ),
        (ProviderError("no", status_code=400, param="top_logprobs"), True),
        (ProviderError("logprobs not supported", status_code=400, param="temperature"), False),
        (ProviderError("logprobs not supported", status_code=401), False),
        (ProviderError("logprobs not supported", status_code=429), False),
        (ProviderError("logprobs not supported", status_code=503), False),
        (ProviderError("no key is given. You asked for logprobs", status_code=400), False),
        (ProviderError('bad prompt "logprobs is not supported"', status_code=400), False),
        (ProviderError("cannot parse {'a': {'logprobs': True}}", status_code=400), False),
        (ConnectionError("logprobs is not supported"), False),
        (ProviderError("logprobs"), False),
    ],
)
def test_what_counts_as_a_refusal(error, refused):
    """What the provider names decides; else a sentence that refuses them."""
    assert rejects_logprobs(error) is refused


def test_wrapped_errors():
    """Hosts wrap the errors of their clients."""
    error = RuntimeError("the edge failed")
    error.__cause__ = ProviderError("logprobs is not supported", status_code=400)
    assert rejects_logprobs(error)
