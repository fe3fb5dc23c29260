"""OpenAI's Responses API as an edge: asked for log-probabilities in its own way."""

import httpx
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAIResponses

from confroute import Cascade, TokenLogprob, record
from confroute.models.resilience import Limits
from confroute.signals import OptionProbability
from confroute.testing import ScriptedModel, wire
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

WANTED = "message.output_text.logprobs"
USAGE = {
    **{"input_tokens": 9, "output_tokens": 1, "total_tokens": 10},
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}
OPTIONS = "Which planet is red?\nA. Venus\nB. Mars"


class Responding(wire.RequestHandler):
    """Answers B, with log-probabilities where they are asked for and not refused."""

    def respond(self, body):
        asked = WANTED in (body.get("include") or ())
        if asked and self.served.refuses:
            error = {"message": f"{WANTED} is not supported with this model", "param": "include"}
            self.send_json({"error": error}, code=400)
            return
        tops = [{"token": text, "logprob": nats, "bytes": []} for text, nats in (("B", -0.5), ("A", -1.0))]
        scored = [{**tops[0], "top_logprobs": tops[: body.get("top_logprobs", 0)]}] if asked else []
        part = {"type": "output_text", "text": "B", "annotations": [], "logprobs": scored}
        said = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"}
        about = {"object": "response", "created_at": 1, "model": body["model"], "status": "completed"}
        more = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": USAGE}
        self.send_json({"id": "resp_1", **about, **more, "output": [{**said, "content": [part]}]})


class Responses(wire.LoopbackServer):
    """A server of that kind."""

    handler = Responding
    refuses = False


@pytest.fixture
def server():
    with Responses() as server:
        yield server


def decided(server, signal, **settings):
    """The decision on one question."""
    with httpx.Client() as client:
        edge = OpenAIResponses(
            model="gpt-4o-mini",
            api_base=server.url,
            api_key="k",
            max_retries=0,
            http_client=client,
            **settings,
        )
        cloud = ScriptedLLM(model=ScriptedModel(["A"], name="large"))
        once = Limits(attempts=1)
        llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=Cascade.of(signal, 0.6), edge_limits=once)
        with record() as decisions:
            llm.chat([ChatMessage(role="user", content=OPTIONS)])
    return decisions[0]


def test_its_log_probabilities_are_evidence(server):
    """Asked for beside what the user includes."""
    decision = decided(server, TokenLogprob(), include=["reasoning.encrypted_content"])
    assert (decision.route, decision.uncertainty) == ("edge", 0.5)
    assert server.bodies[0]["include"] == ["reasoning.encrypted_content", WANTED]


def test_its_alternatives_are_evidence(server):
    """As many as the signal wants."""
    assert decided(server, OptionProbability(top_logprobs=5)).signal == "option_probability"
    assert server.bodies[0]["top_logprobs"] == 5


def test_a_model_that_refuses_is_asked_without(server):
    """The parameter at fault is the one that asks for everything."""
    server.refuses = True
    decision = decided(server, TokenLogprob())
    assert decision.stage == "no_signal"
    assert [bool(body.get("include")) for body in server.bodies] == [True, False]
