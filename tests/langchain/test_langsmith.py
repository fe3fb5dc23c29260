"""LangSmith's own client, on a loopback server: what it is sent holds the decision."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers import LangChainTracer
from langsmith import Client

from confroute import Cascade, KeepPrivate, TokenLogprob
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

INFO = {
    "batch_ingest_config": {
        "use_multipart_endpoint": False,
        "size_limit": 100,
        "size_limit_bytes": 20_000_000,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 1,
        "scale_down_nempty_trigger": 4,
    }
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._say(INFO)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sent += [*body.get("post", ()), *body.get("patch", ())]
        self._say({})

    def _say(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def langsmith(request):
    """A tracer, and a function that returns the runs that LangSmith received, by name; a test may give its client settings."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.sent = []
    thread = Thread(target=server.serve_forever)
    thread.start()
    client = Client(
        api_url=f"http://127.0.0.1:{server.server_port}", api_key="none", **getattr(request, "param", {})
    )

    def runs():
        client.flush()
        return {run["name"]: run for run in server.sent}

    yield LangChainTracer(client=client, project_name="test"), runs
    client.cleanup()
    server.shutdown()
    thread.join()
    server.server_close()


def router(logprob):
    return ChatConfRoute(
        edge=ScriptedChat.of("perhaps", logprob=logprob, name="small"),
        cloud=ScriptedChat.of("surely", name="large"),
        policy=Cascade.of(TokenLogprob(), 0.25),
    )


@pytest.mark.parametrize(("logprob", "route"), [(-0.01, "edge"), (-3.0, "cloud")])
async def test_a_run_carries_the_decision(langsmith, logprob, route):
    """Whole in the output of the router's run, and what runs are filtered by in its metadata; in chains too."""
    tracer, runs = langsmith
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | router(logprob)
    await chain.ainvoke({"question": "Capital?"}, {"callbacks": [tracer]})
    run = runs()["ChatConfRoute"]
    told = run["extra"]["metadata"]
    assert told["confroute_route"] == route
    assert told["confroute_signal"] == "token_logprob"
    assert told["confroute_uncertainty"] == pytest.approx(-logprob)
    assert told["confroute_threshold"] == 0.25
    assert f'"route": "{route}"' in json.dumps(run["outputs"])
    assert run["parent_run_id"] is not None


def test_a_stream_carries_it_too(langsmith):
    """Known when the stream ends."""
    tracer, runs = langsmith
    list(router(-3.0).stream("Capital?", {"callbacks": [tracer]}))
    assert runs()["ChatConfRoute"]["extra"]["metadata"]["confroute_route"] == "cloud"


async def asked(model, form, config):
    """One call to its end."""
    call = getattr(model, form)("What does Jane Doe earn?", config)
    if form == "astream":
        _ = [chunk async for chunk in call]
    else:
        _ = await call if form == "ainvoke" else list(call)


HIDING = {
    "inputs and outputs": {"hide_inputs": True, "hide_outputs": True},
    "by functions": {"hide_inputs": lambda inputs: {}, "hide_outputs": lambda outputs: {}},
}


@pytest.mark.parametrize("langsmith", HIDING.values(), ids=HIDING, indirect=True)
@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_client_that_hides_is_sent_no_private_text(langsmith, form):
    """Neither the prompt nor the answer, of the router's run and of its models'; the decision's summary is there."""
    tracer, runs = langsmith
    edge = ScriptedChat.of("Jane Doe earns 4000", logprob=-3.0, name="small")
    model = ChatConfRoute(
        edge=edge, cloud=ScriptedChat.of("x"), policy=Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(),))
    )
    config = {"callbacks": [tracer], "tags": ["private"]}
    await asked(model, form, config)
    sent = runs()
    assert sent["ChatConfRoute"]["extra"]["metadata"]["confroute_route"] == "edge"
    # Our scripted model prints its script, which is no part of a call.
    told = json.dumps([{**run, "serialized": None} for run in sent.values()])
    assert len(sent) >= 2
    assert "Jane" not in told
    assert "4000" not in told


async def test_a_client_that_does_not_hide_is_sent_all(langsmith):
    """Private or not: tracers are no models."""
    tracer, runs = langsmith
    await router(-3.0).ainvoke("What does Jane Doe earn?", {"callbacks": [tracer], "tags": ["private"]})
    assert "Jane" in json.dumps(runs()["ChatConfRoute"]["inputs"])


def class_alone(fields):
    """As docs/private.md has it."""
    return {**fields, "error": fields["error"].partition("(")[0]} if "error" in fields else fields


async def failed(tracer, form, message="invalid prompt: What does Jane Doe earn?"):
    """A private call whose edge fails by an error that quotes the prompt."""
    edge = ScriptedChat(script=ScriptedModel([Reply(fault=RuntimeError(message))], name="small"))
    model = ChatConfRoute(
        edge=edge, cloud=ScriptedChat.of("x"), policy=Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(),))
    )
    with pytest.raises(RuntimeError):
        await asked(model, form, {"callbacks": [tracer], "tags": ["private"]})


@pytest.mark.parametrize(
    "langsmith", [{"hide_inputs": True, "hide_outputs": True, "anonymizer": class_alone}], indirect=True
)
@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream"])
async def test_an_anonymizer_hides_the_text_of_errors(langsmith, form):
    """In the router's run and in its model's, which keep the error's class; nothing else tells the prompt."""
    tracer, runs = langsmith
    await failed(tracer, form)
    sent = runs()
    assert len(sent) >= 2
    assert {run["error"] for run in sent.values()} <= {"RuntimeError", "TierError", "AllTiersFailedError"}
    assert "Jane" not in json.dumps([{**run, "serialized": None} for run in sent.values()])


@pytest.mark.parametrize("langsmith", [HIDING["inputs and outputs"]], indirect=True)
async def test_without_one_errors_are_sent_as_they_are(langsmith):
    """Hiding inputs and outputs is not enough."""
    tracer, runs = langsmith
    await failed(tracer, "ainvoke")
    assert all("Jane Doe" in run["error"] for run in runs().values())
