"""A draft that its client cannot read is a flawed answer and no outage: paid, counted, and judged by nobody."""

import asyncio

import pytest
from pydantic import BaseModel, Field

from confroute import Breaker, Cascade, Limits, SelfConsistency, TokenLogprob, record
from confroute.models.provider_answers import answer_behind
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage

langchain_openai = pytest.importorskip("langchain_openai")
POLICY = Cascade.of(TokenLogprob(), 0.1, on_edge_error="raise")
BILL = Usage(input_tokens=50, output_tokens=20)


class Answer(BaseModel):
    """An answer."""

    n: int = Field(description="The number.")


def model(server, name):
    """A provider's class on a loopback server."""
    return langchain_openai.ChatOpenAI(model=name, base_url=server.url, api_key="k", max_retries=0)


def routers(scripted_server, *, edge, cloud, breakers=(None, None), policy=POLICY):
    """Structured output of a router, by a method whose client parses the answer."""
    from langchain_confroute import ChatConfRoute

    server = scripted_server({"small": ScriptedModel([edge]), "large": ScriptedModel([cloud])})
    first, last = (Limits(attempts=2, wait_s=0.0, breaker=breaker) for breaker in breakers)
    router = ChatConfRoute(
        edge=model(server, "small"),
        cloud=model(server, "large"),
        policy=policy,
        edge_limits=first,
        cloud_limits=last,
    )
    return router.with_structured_output(Answer, method="json_schema")


def asked(chain, form):
    """One value."""
    return chain.invoke("q") if form == "sync" else asyncio.run(chain.ainvoke("q"))


WRONG = [
    Reply(text="four, I think", usage=BILL),
    Reply(text='{"n": "four"}', usage=BILL),
    Reply(text='{"n": 4', finish="length", usage=BILL),
]


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_draft_that_does_not_parse_is_a_flawed_draft(scripted_server, form, wrong):
    """It goes to the cloud, though failures of the edge are to be raised; its tokens count; the breaker stays closed."""
    breaker = Breaker(failures=1)
    chain = routers(scripted_server, edge=wrong, cloud=Reply(text='{"n": 4}'), breakers=(breaker, None))
    with record() as decisions:
        assert asked(chain, form) == Answer(n=4)
    (decision,) = decisions
    assert (decision.route, decision.stage) == ("cloud", "draft")
    assert decision.usage["edge"] == BILL
    assert [step.attempts for step in decision.steps] == [1, 1]
    assert "cannot be used" in decision.reason
    assert breaker.state == "closed"


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_last_answer_that_does_not_parse_is_raised_and_paid(scripted_server, form):
    """Nobody else may answer: the client's error as it came, its tokens in the decision, no second attempt, no open breaker."""
    breaker = Breaker(failures=1)
    chain = routers(scripted_server, edge=WRONG[0], cloud=WRONG[1], breakers=(None, breaker))
    with record() as decisions, pytest.raises(Exception, match="draft was rejected"):
        asked(chain, form)
    (decision,) = decisions
    assert decision.stage == "failed"
    assert decision.usage == {"edge": BILL, "cloud": BILL}
    assert [step.attempts for step in decision.steps] == [1, 1]
    assert breaker.state == "closed"


def test_samples_that_do_not_parse_are_answers_too(scripted_server):
    """They are paid and compared like others; none is drawn again."""
    policy = Cascade.of(SelfConsistency(n=3, step=3), 0.3)
    with record() as decisions:
        chain = routers(
            scripted_server,
            edge=Reply(text='{"n": 4}', usage=BILL),
            cloud=Reply(text='{"n": 5}'),
            policy=policy,
        )
        assert asked(chain, "sync") == Answer(n=4)
    assert decisions[0].usage["edge"] == BILL + BILL + BILL + BILL


class _Response:
    def __init__(self, status_code, body):
        self.status_code, self._body = status_code, body

    def json(self):
        if isinstance(self._body, Exception):
            raise self._body
        return self._body


COMPLETION = {
    "choices": [{"message": {"content": "x"}}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 20},
}


def _error(**attributes):
    error = ValueError("?")
    vars(error).update(attributes)
    return error


def test_answers_behind_errors():
    """In the response or beside it, of the error or of its cause; an error's own page holds none."""
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = _error(response=_Response(200, COMPLETION))
    for error in (_error(response=_Response(200, COMPLETION)), _error(completion=COMPLETION), wrapped):
        assert answer_behind(error).usage == BILL
    responses = {"output": [{"type": "message"}], "usage": {"input_tokens": 50, "output_tokens": 20}}
    assert answer_behind(_error(response=_Response(200, responses))).usage == BILL
    for error in (
        ValueError("?"),
        _error(response=_Response(500, COMPLETION)),
        _error(response=_Response(200, ValueError("<html>"))),
        _error(response=_Response(200, {"error": "?"})),
    ):
        assert answer_behind(error) is None
