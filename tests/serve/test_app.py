"""The server itself: who may ask, what it takes on, how failures reach callers, and what its answers hold."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager

import httpx
import pytest

from confroute import Cascade, KeepPrivate, Limits, Router, TokenLogprob
from confroute.errors import (
    AllTiersFailedError,
    BreakerOpenError,
    BudgetSpentError,
    DeadlineError,
    NoSignalError,
    PolicyError,
    PrivacyError,
    RequestError,
    TierError,
    also_as,
)
from confroute.models.openai import OpenAIModel
from confroute.serve import ServerLimits, make_app
from confroute.serve.errors import failed, status_for
from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults
from tests.serve.conftest import PATIENCE_S, serving

SURE, UNSURE = Reply(text="Bern it is", logprob=-0.01), Reply(text="Rome perhaps", logprob=-2.0)
ONCE = Limits(attempts=1)
SECRET = "Aare"
POLICY = Cascade.of(TokenLogprob(), 0.3)
PRIVATE = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=(SECRET,)),))


def router_of(edge=SURE, cloud="Geneva", policy=POLICY):
    """Scripted models, or models as they are."""
    edge = ScriptedModel([edge], name="small") if isinstance(edge, (Reply, str)) else edge
    cloud = ScriptedModel([cloud], name="large") if isinstance(cloud, (Reply, str)) else cloud
    return Router(edge=edge, cloud=cloud, policy=policy, edge_limits=ONCE, cloud_limits=ONCE)


def body_of(text="Capital of Switzerland?", **settings):
    """The JSON of a request."""
    return {"model": "confroute", "messages": [{"role": "user", "content": text}], **settings}


@contextmanager
def client_of(*models, policy=POLICY, **settings):
    """An HTTP client of a server."""
    with (
        serving(make_app(router_of(*models, policy=policy), **settings)) as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        yield client


def posted(client, headers=None, **settings):
    """The answer to a request."""
    return client.post("/v1/chat/completions", json=body_of(**settings), headers=headers or {})


def events_of(response):
    """The JSON of a stream's events; its last is "[DONE]" unless it broke off."""
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1] == "[DONE]"


def test_an_answer_holds_its_decision():
    """Whole in the body, short in a header, neither with a word of the texts; the usage is the answer's own."""
    with client_of(UNSURE) as client:
        response = posted(client)
    told, short = response.json(), json.loads(response.headers["x-confroute-decision"])
    decision = told["metadata"]["confroute"]
    assert (told["model"], told["choices"][0]["message"]["content"]) == ("confroute", "Geneva")
    assert (decision["route"], decision["uncertainty"]) == ("cloud", 2.0)
    assert short == {name: decision[name] for name in short}
    assert {"route", "stage", "uncertainty", "threshold", "run_id"} <= set(short)
    assert told["usage"] == {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    assert not any(word in json.dumps([decision, short]) for word in ("Switzerland", "Rome", "Geneva"))


@pytest.mark.parametrize(("edge", "parts"), [(SURE, 1), (UNSURE, 3)])
def test_a_stream_ends_with_reason_decision_and_usage(edge, parts):
    """A kept draft comes in one part, an escalated answer word by word; usage stands in it where it is asked for."""
    with client_of(edge, "one two three") as client:
        for options, count in ({}, 0), ({"stream_options": {"include_usage": True}}, 1):
            events, done = events_of(posted(client, stream=True, **options))
            usage = [event["usage"] for event in events if event.get("usage")]
            *said, last = [event for event in events if event["choices"]]
            assert done
            assert len(usage) == count
            assert len(said) == parts
            assert said[0]["choices"][0]["delta"]["role"] == "assistant"
            assert last["choices"][0]["finish_reason"] == "stop"
            assert last["metadata"]["confroute"]["route"] == ("edge" if edge is SURE else "cloud")
            assert len({event["id"] for event in events}) == 1


@pytest.mark.parametrize("edge", [SURE, UNSURE])
@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_given_to_who_asks(edge, stream):
    """With as many alternatives, and to nobody else, though the router asks for its own sake."""
    tops = ((("Geneva", -0.1), ("Bern", -2.5)),)
    with client_of(edge, Reply(text="Geneva", logprob=-0.1, top_logprobs=tops)) as client:

        def content(**settings):
            response = posted(client, stream=stream, **settings)
            events = events_of(response)[0] if stream else [response.json()]
            found = [one["choices"][0]["logprobs"] for one in events if one["choices"]]
            return [entry for logprobs in found if logprobs for entry in logprobs["content"]]

        assert content() == []
        asked = content(logprobs=True, top_logprobs=1)
    assert [entry["token"] for entry in asked] == (["Bern", " it", " is"] if edge is SURE else ["Geneva"])
    assert [len(entry["top_logprobs"]) for entry in asked] == ([0, 0, 0] if edge is SURE else [1])


def test_options_come_by_header_metadata_or_body():
    """And are refused where they are misspelt, whichever way."""
    with client_of(UNSURE) as client:
        for way in (
            {"headers": {"x-confroute-route": "edge"}},
            {"metadata": {"confroute_route": "edge"}},
            {"confroute_route": "edge"},
            {"headers": {"x-confroute-route": "cloud"}, "confroute_route": "edge"},
        ):
            assert posted(client, **way).json()["metadata"]["confroute"]["stage"] == "forced"
            assert posted(client, **way).json()["metadata"]["confroute"]["route"] == "edge"
        lenient = posted(client, headers={"x-confroute-threshold": "2.5", "x-confroute-tags": "a, b"})
        assert lenient.json()["metadata"]["confroute"]["threshold"] == 2.5
        for way in (
            {"headers": {"x-confroute-rout": "edge"}},
            {"metadata": {"confroute_rout": "edge"}},
            {"confroute_rout": "edge"},
            {"headers": {"x-confroute-threshold": "low"}},
            {"headers": {"x-confroute-threshold": "-1"}},
            {"confroute_threshold": {"self_consistency": 0.3}},
        ):
            refused = posted(client, **way)
            assert refused.status_code == 400
            assert refused.json()["error"]["type"] == "invalid_request_error"


def test_headers_that_stand_twice_lose_no_tag():
    """A proxy that adds its own tags takes none of the caller's; what cannot add up is refused, and so are headers of other spellings."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(),))
    with client_of(UNSURE, policy=policy) as client:
        for name in ("x-confroute-tags", "X-Confroute_Tags"):
            twice = [(name, "private"), ("x-confroute-tags", "math")]
            assert posted(client, headers=twice).json()["metadata"]["confroute"]["private"]
        for headers in (
            [("x-confroute-route", "edge"), ("x-confroute-route", "cloud")],
            [("confroute-tags", "private")],
        ):
            assert posted(client, headers=headers).status_code == 400


def test_a_key_is_asked_for():
    """Of everything but `/health`."""
    with client_of(key="k") as client:
        wrong = ("Bearer wrong", "Bearer \u00e9".encode(), "k", "Basic k", "Bearer", "Bearer  k")
        for headers in ({}, *({"authorization": value} for value in wrong)):
            assert client.get("/v1/models", headers=headers).status_code == 401
            assert posted(client, headers).status_code == 401
        right = {"authorization": "Bearer k", "host": "router.example"}
        assert posted(client, {**right, "authorization": "bearer k"}).status_code == 200
        assert posted(client, right).status_code == client.get("/v1/models", headers=right).status_code == 200
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("key", ["", " ", "two words", "Schlüssel", "a\nb"])
def test_a_key_that_no_header_holds_is_refused(key):
    """An unset variable read as "" would let everybody in."""
    with pytest.raises(PolicyError, match="the key is empty or holds"):
        make_app(router_of(), key=key)


def test_pages_of_other_sites_cannot_ask_a_server_without_a_key():
    """Neither by a name of theirs that leads here, nor by a request that browsers send without asking."""
    edge = ScriptedModel([SURE])
    with client_of(edge) as client:
        assert posted(client, {"host": "evil.example"}).status_code == 403
        plain = client.post(
            "/v1/chat/completions", content=json.dumps(body_of()), headers={"content-type": "text/plain"}
        )
        assert plain.status_code == 415
        assert posted(client, {"host": "localhost:1"}).status_code == 200
    assert len(edge.calls) == 1


def test_what_is_no_request_is_refused():
    """In OpenAI's shape, with the right status, before a model is asked."""
    edge = ScriptedModel([SURE])
    with client_of(edge, limits=ServerLimits(body_bytes=2000)) as client:

        def status(content, path="/v1/chat/completions"):
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            response = client.post(path, content=sent, headers={"content-type": "application/json"})
            assert {"message", "type", "param", "code"} == set(response.json()["error"])
            return response.status_code

        assert status(b"{") == status(b"[]") == status(b'{"n": 1, "n": 2}') == status(b"\xff") == 400
        assert status({"model": "confroute"}) == status(body_of(" ")) == status(body_of(n=2)) == 400
        assert status(body_of() | {"model": "gpt"}) == status({}, "/v2") == 404
        assert status(body_of("x" * 2000)) == 413
        assert client.get("/v1/chat/completions").status_code == 405
        endless = client.post(
            "/v1/chat/completions",
            content=iter([b"x" * 1500] * 2),
            headers={"content-type": "application/json"},
        )
        assert endless.status_code == 413
    assert not edge.calls


def test_models_and_health():
    """The one model; health tells what it is given."""
    with client_of(name="mine", health=lambda: {"promise": "held"}) as client:
        (model,) = client.get("/v1/models").json()["data"]
        assert (model["id"], model["object"]) == ("mine", "model")
        assert client.get("/health").json() == {"status": "ok", "running": 0, "promise": "held"}


class Waiting:
    """A model whose answers wait until they are let go, and that notices when one is cancelled."""

    name, remote = "waiting", False

    def __init__(self):
        self.begun, self.ended, self.go = threading.Event(), threading.Event(), threading.Event()

    def generate(self, messages, *, n=1, **settings):
        """Never in these tests."""
        raise NotImplementedError

    async def agenerate(self, messages, *, n=1, **settings):
        """Wait."""
        self.begun.set()
        try:
            while not self.go.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.ended.set()
            raise
        return (SURE.generation("", model=self.name),)


@pytest.mark.parametrize("stream", [False, True])
def test_one_call_too_many_is_refused_for_now(stream):
    """With 503 and a time; the running one is answered."""
    edge = Waiting()
    with client_of(edge, limits=ServerLimits(concurrent=1)) as client:
        answers = []
        first = threading.Thread(target=lambda: answers.append(posted(client, stream=stream)))
        first.start()
        assert edge.begun.wait(PATIENCE_S)
        with httpx.Client(base_url=client.base_url, timeout=PATIENCE_S) as second:
            refused = posted(second, stream=stream)
            assert second.get("/health").json()["running"] == 1
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        edge.go.set()
        first.join(PATIENCE_S)
        assert answers[0].status_code == 200
        assert client.get("/health").json()["running"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_ends_the_model_s_call(stream):
    """No draft is paid for that nobody reads."""
    edge = Waiting()
    with client_of(edge) as client:

        def impatient():
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body_of(stream=stream), timeout=0.2)

        impatient()
        assert edge.ended.wait(PATIENCE_S)


def test_who_leaves_a_stream_ends_it():
    """The upstream's stream is closed too."""
    words = Reply(text=" ".join(["word"] * 400))
    with (
        ScriptedServer(ScriptedModel([words]), pause_s=0.01) as upstream,
        client_of(UNSURE, OpenAIModel(model="large", base_url=upstream.url)) as client,
    ):
        with client.stream("POST", "/v1/chat/completions", json=body_of(stream=True)) as response:
            next(response.iter_lines())
        client.close()
        waited = threading.Event()
        for _ in range(PATIENCE_S * 20):
            if upstream.abandoned:
                break
            waited.wait(0.05)
        assert upstream.abandoned == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_has_its_time(stream):
    """Then it ends in 504, and so does the model's."""
    edge = Waiting()
    with client_of(edge, limits=ServerLimits(timeout_s=0.05)) as client:
        response = posted(client, stream=stream)
    assert (response.status_code, response.json()["error"]["type"]) == (504, "api_error")
    assert edge.ended.wait(PATIENCE_S)


def upstream_error(status, **told):
    """What a provider's client raises."""
    return also_as(TierError("cloud failed"), faults.status(status, **told))


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (RequestError("empty"), 400, None),
        (faults.status(400), 400, None),
        (faults.status(401), 502, None),
        (faults.status(404), 502, None),
        (faults.status(422), 422, None),
        (faults.rate_limited(retry_after_s=1.5), 429, "2"),
        (also_as(TierError("cloud failed"), faults.rate_limited(retry_after_s=7)), 429, "7"),
        (faults.status(500), 502, None),
        (faults.status(503), 503, None),
        (faults.cut_off(), 502, None),
        (faults.timeout(), 504, None),
        (DeadlineError(tier="cloud", left_s=0.0), 504, None),
        (BreakerOpenError(tier="cloud", failures=3, retry_in_s=4.2), 503, "5"),
        (BudgetSpentError(budget="b", wanted=2, left=1, unit="USD", renewed_in_s=60), 429, "60"),
        (AllTiersFailedError({"edge": faults.status(400), "cloud": faults.status(429)}), 429, None),
        (NoSignalError("no"), 500, None),
        (PrivacyError(tier="cloud", bound_to="edge"), 500, None),
        (KeyError("x"), 500, None),
    ],
)
def test_statuses(error, status, wait):
    """A provider's refusal of the request keeps its meaning; one of the server's own key is not its caller's."""
    response = failed(error)
    assert (status_for(error), response.status_code) == (status, status)
    assert response.headers.get("retry-after") == wait


def refusing_server(text):
    """A provider that repeats the prompt in its refusals."""
    return ScriptedServer(ScriptedModel(), refuse=lambda body: (400, {"message": text}))


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_s_words_reach_the_caller_unless_the_call_is_private(stream):
    """They say what to change; of a private call, and in the log, there are none."""
    words = f"the prompt about {SECRET} is too odd"
    with refusing_server(words) as server:
        model = OpenAIModel(model="small", base_url=server.url)
        with client_of(UNSURE, model, policy=PRIVATE) as client:
            said = posted(client, stream=stream)
        assert said.status_code == 400
        assert words in said.json()["error"]["message"]
        with client_of(model, policy=PRIVATE) as client:
            kept = posted(client, stream=stream, text=f"Where is the {SECRET}?")
        assert kept.status_code == 400
        assert SECRET not in kept.text


def test_a_stream_that_breaks_off_says_so_in_an_event(caplog):
    """And neither the event nor the log holds what the provider said."""
    cut = Reply(text="one two three", fault=RuntimeError(f"about {SECRET}"), fault_after=2)
    with caplog.at_level("DEBUG"), client_of(UNSURE, cut) as client:
        response = posted(client, stream=True, text=f"Where is the {SECRET}?")
        events, done = events_of(response)
    assert not done
    assert events[-1]["error"]["code"] == "StreamInterruptedError"
    assert SECRET not in response.text
    assert SECRET not in caplog.text


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}


@pytest.mark.parametrize("route", ["edge", "cloud", "auto"])
@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_reach_the_caller(monkeypatch, stream, route):
    """Whole, or in the parts that the provider sent; a kept draft's in one part."""
    from confroute.models import chat_format
    from confroute.testing import server as module

    def events(body, answer):
        parts = [{"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather", "arguments": ""}}]}]
        parts += [
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
            for part in ('{"city"', ': "Bern"}')
        ]
        yield from (chat_format.delta(body, part) for part in parts)
        yield chat_format.delta(body, {}, finish="tool_calls")

    def completion(body, answer):
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return chat_format.completion(body, [choice], answer.usage)

    monkeypatch.setattr(module, "_events", events)
    monkeypatch.setattr(module, "_completion", completion)
    with ScriptedServer(ScriptedModel()) as server:
        edge, cloud = (OpenAIModel(model=name, base_url=server.url) for name in ("small", "large"))
        with client_of(edge, cloud, policy=Cascade.of(TokenLogprob(), 0.3, on_no_signal="edge")) as client:
            response = posted(client, stream=stream, tools=[WEATHER], confroute_route=route)
    if stream:
        said, done = events_of(response)
        message, finish = chat_format.GrowingMessage(), said[-1]["choices"][0]["finish_reason"]
        for one in said:
            message.add(one["choices"][0]["delta"])
        whole = message.whole
        assert done
        assert len(said) == (2 if route == "auto" else 4)
    else:
        whole, finish = (
            response.json()["choices"][0]["message"],
            response.json()["choices"][0]["finish_reason"],
        )
    assert (whole["tool_calls"], finish) == ([CALL], "tool_calls")


def test_any_number_of_tiers():
    """Each is a route of its own, and no other name is one."""
    tiers = {
        "small": ScriptedModel([UNSURE]),
        "mid": ScriptedModel(["Bern"], name="mid"),
        "large": ScriptedModel(["Geneva"], name="large"),
    }
    policy = Cascade(gates=POLICY.gates, tiers=tuple(tiers))
    with (
        serving(make_app(Router(tiers=tiers, policy=policy))) as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        assert posted(client).json()["metadata"]["confroute"]["route"] == "mid"
        for way in ({"headers": {"x-confroute-route": "large"}}, {"confroute_route": "large"}):
            assert posted(client, **way).json()["choices"][0]["message"]["content"] == "Geneva"
        assert posted(client, confroute_route="cloud").status_code == 400
