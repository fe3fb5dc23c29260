"""Servers that are gone, or do not have the model: one answer of the cloud, and a decision that says why."""

from dataclasses import replace

import pytest

from confroute import Cascade, TokenLogprob

pytestmark = pytest.mark.slow

CLOUD = "The cloud answers."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
POLICY = Cascade.of(TokenLogprob(), 1e9)


async def test_a_stopped_server_costs_one_answer_of_the_cloud(own_server, client, ask):
    """It answered and then is gone: each connection is refused, the decision says so, and nothing of the edge is billed."""
    router = client(own_server, POLICY)
    assert (await ask(router, QUESTION)).text == ANSWER
    own_server.process.kill()
    own_server.process.wait()
    for form in ("sync", "async", "stream", "astream"):
        seen = await ask(router, QUESTION, form)
        assert (seen.text, seen.decision.route, seen.decision.stage) == (CLOUD, "cloud", "fallback")
        assert "edge failed" in seen.decision.reason
        assert "nothing answers there: is the server running" in seen.decision.reason
        failed, answered = seen.decision.steps
        assert (failed.kind, failed.usage, "ConnectionError" in failed.error) == ("draft", None, True)
        assert (answered.kind, answered.tier, answered.attempts) == ("final", "cloud", 1)


async def test_a_stopped_server_is_named_where_nothing_answers_in_its_place(own_server, client, ask):
    """The policy may raise the client's own error."""
    own_server.process.kill()
    own_server.process.wait()
    with pytest.raises(Exception, match="Connection error") as caught:
        await ask(client(own_server, replace(POLICY, on_edge_error="raise")), QUESTION)
    assert "ConnectionError" in type(caught.value).__name__


async def test_a_model_that_transformers_lacks_is_an_error_of_the_server(transformers_serve, client, ask):
    """500 without a word of explanation."""
    seen = await ask(client(replace(transformers_serve, model="absent"), POLICY), QUESTION)
    assert (seen.text, seen.decision.route, seen.decision.stage) == (CLOUD, "cloud", "fallback")
    assert seen.decision.steps[0].error in {"InternalServerError", "OpenAIAPIError"}


async def test_llamacpp_answers_to_any_name(llamacpp, client, ask):
    """It has one model, and does not look at the name."""
    seen = await ask(client(replace(llamacpp, model="absent"), POLICY), QUESTION)
    assert (seen.text, seen.decision.steps[0].model) == (ANSWER, "smollm2")
