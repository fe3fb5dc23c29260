"""The test kit: faults as real clients raise them, a server that makes them happen, a plugin against real calls."""

import json
import re
import time

import httpx
import openai
import pytest

from confroute import Cascade, Limits, TokenLogprob
from confroute.models.resilience import is_transient
from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults

pytest_plugins = ["pytester"]
REQUEST = {"model": "small", "messages": [{"role": "user", "content": "Which city?"}]}

FAULTS = {
    "timeout": (faults.timeout, openai.APITimeoutError),
    "429": (faults.rate_limited, openai.RateLimitError),
    "500": (faults.server_error, openai.InternalServerError),
    "401": (lambda *a: faults.status(401, *a), openai.AuthenticationError),
    "400": (lambda *a: faults.status(400, *a), openai.BadRequestError),
    "cut": (faults.cut_off, openai.APIConnectionError),
    "malformed": (lambda *_: faults.malformed(), json.JSONDecodeError),
}


def client(server, **fields):
    """OpenAI's own client."""
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, **{"timeout": 0.3, **fields})


@pytest.mark.parametrize("name", FAULTS)
def test_scripted_faults_are_those_that_real_clients_raise(name):
    """Over the wire and in memory the class is the same, and the plain form is retried or not alike."""
    make, kind = FAULTS[name]
    with (
        ScriptedServer(ScriptedModel([Reply(fault=make())])) as server,
        client(server) as real,
        pytest.raises(kind) as caught,
    ):
        real.chat.completions.create(**REQUEST)
    scripted = make("openai")
    assert type(scripted) is type(caught.value)
    assert getattr(scripted, "status_code", None) == getattr(caught.value, "status_code", None)
    assert is_transient(make()) == is_transient(scripted) == is_transient(caught.value)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(faults.cut_off(), httpx.RemoteProtocolError), (faults.malformed(), json.JSONDecodeError)],
)
def test_streams_break_in_the_middle(fault, kind):
    """The fault comes after the first words."""
    reply, shown = Reply(text="one two three", fault=fault, fault_after=2), []

    def read(real):
        for chunk in real.chat.completions.create(**REQUEST, stream=True):
            shown.append(chunk.choices[0].delta.content)

    with ScriptedServer(ScriptedModel([reply])) as server, client(server) as real, pytest.raises(kind):
        read(real)
    assert shown == ["one", " two"]


def test_server_answers_as_openai_does():
    """Log-probabilities on request, usage, samples by temperature, and one script per model name."""
    small = ScriptedModel([Reply(text="Bern it is", logprob=-0.5)], samples=["Rome"])
    with ScriptedServer({"small": small}) as server, client(server) as real:
        whole = real.chat.completions.create(**REQUEST, logprobs=True)
        assert whole.choices[0].message.content == "Bern it is"
        assert [one.logprob for one in whole.choices[0].logprobs.content] == [-0.5] * 3
        assert whole.usage.completion_tokens == 3
        assert real.chat.completions.create(**REQUEST).choices[0].logprobs is None
        assert real.chat.completions.create(**REQUEST, temperature=0.7).choices[0].message.content == "Rome"
        with pytest.raises(openai.NotFoundError, match="no scripted model 'other'"):
            real.chat.completions.create(**{**REQUEST, "model": "other"})
        streamed = list(real.chat.completions.create(**REQUEST, stream=True, logprobs=True))
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == "Bern it is"
    assert streamed[-1].usage.completion_tokens == 3
    assert small.calls[0].prompt == "user: Which city?"
    assert [body.get("temperature") for body in server.bodies] == [None, None, 0.7, None, None]


def test_latency_passes_on_the_wire():
    """The client waits for as long as scripted."""
    with ScriptedServer(ScriptedModel([Reply(text="x", latency_s=0.2)])) as server, client(server) as real:
        start = time.perf_counter()
        real.chat.completions.create(**{**REQUEST}, timeout=2)
        assert time.perf_counter() - start >= 0.2
        with pytest.raises(openai.APITimeoutError):
            real.chat.completions.create(**REQUEST, timeout=0.05)


def test_rate_limits_say_when_to_retry():
    """In the header that clients read."""
    fault = faults.rate_limited(retry_after_s=1.5)
    with (
        ScriptedServer(ScriptedModel([Reply(fault=fault)])) as server,
        client(server) as real,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        real.chat.completions.create(**REQUEST)
    assert caught.value.response.headers["retry-after"] == "1.5"
    assert faults.rate_limited("openai", retry_after_s=1.5).response.headers["retry-after"] == "1.5"


def test_only_error_statuses_are_faults():
    """A status of success is refused."""
    with pytest.raises(ValueError, match="400 to 599"):
        faults.status(200)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("timeout", "Timeout"),
        ("500", "InternalServerError|OpenAIAPIError"),
        ("cut", "Connection"),
        ("malformed", "JSONDecode"),
    ],
)
def test_both_hosts_meet_real_faults(name, word):
    """Real OpenAI integrations against the server: in both hosts the cloud answers, and the decision names the fault."""
    from langchain_openai import ChatOpenAI
    from llama_index.llms.openai_like import OpenAILike

    from langchain_confroute import ChatConfRoute
    from llamaindex_confroute import ConfRouteLLM

    once = Limits(attempts=1)
    policy = Cascade.of(TokenLogprob(), 0.3)
    models = {"small": ScriptedModel([Reply(fault=FAULTS[name][0]())]), "large": ScriptedModel(["Bern"])}
    with ScriptedServer(models) as server:
        # On a busy machine the cloud's answer may take long; the edge's never comes.
        tiers = (("edge", "small", 0.2), ("cloud", "large", 9.0))
        common = {"api_key": "none", "max_retries": 0}
        chats = {
            tier: ChatOpenAI(model=model, base_url=server.url, timeout=timeout_s, **common)
            for tier, model, timeout_s in tiers
        }
        llms = {
            tier: OpenAILike(
                model=model, api_base=server.url, is_chat_model=True, timeout=timeout_s, **common
            )
            for tier, model, timeout_s in tiers
        }
        limits = {"edge_limits": once, "cloud_limits": once}
        chat = ChatConfRoute(**chats, policy=policy, **limits).invoke("Which city?")
        response = ConfRouteLLM(**llms, policy=policy, **limits).complete("Which city?")
    for text, decision in (
        (chat.text, chat.response_metadata["confroute"]),
        (response.text, response.additional_kwargs["confroute"]),
    ):
        assert (text, decision["route"], decision["stage"]) == ("Bern", "cloud", "fallback")
        assert re.search(word, decision["reason"])


GUARDED = """
import socket
import pytest

def test_caught():
    try:
        socket.create_connection(("203.0.113.1", 80), timeout=1)
    except Exception:
        pass

def test_by_name():
    with pytest.raises(Exception, match="api.example.com"):
        socket.create_connection(("api.example.com", 443))

def test_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(Exception, match="203.0.113.2"):
        sender.sendto(b"x", ("203.0.113.2", 9))

def test_loopback(scripted_server):
    from urllib.request import Request, urlopen
    from confroute.testing import ScriptedModel
    server = scripted_server(ScriptedModel(["Bern"]))
    body = b'{"model": "m", "messages": []}'
    assert b"Bern" in urlopen(Request(server.url + "/chat/completions", data=body)).read()

@pytest.mark.real_calls
def test_allowed():
    with pytest.raises(Exception):
        socket.create_connection(("255.255.255.255", 9), timeout=0.2)

def test_decisions(decisions):
    assert decisions == []
"""


def run_guarded(pytester, *options):
    """Run another pytest in this process, without this suite's own guards."""
    pytester.makepyfile(GUARDED)
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "no:socket", "-p", "no:asyncio", *options
    )


# Only the inner run is guarded by the plugin.
@pytest.mark.real_calls
def test_plugin_forbids_real_calls(pytester):
    """A refused call fails the test even if its error was caught, as a router would have hidden it."""
    outcome = run_guarded(pytester, "-p", "confroute.testing.plugin", "--strict-markers")
    outcome.assert_outcomes(passed=6, errors=3)
    outcome.stdout.fnmatch_lines(["*tried to reach 203.0.113.1:80*", "*tried to reach api.example.com:443*"])


def test_plugin_is_opt_in(pytester):
    """Without the plugin nothing is guarded, declared or provided."""
    pytester.makepyfile("import confroute.testing")
    outcome = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "--fixtures")
    assert "confroute_no_real_calls" not in outcome.stdout.str()
