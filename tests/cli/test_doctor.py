"""`confroute doctor` and `diagnose`: real calls, real findings."""

import json

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

from confroute.cli import main
from langchain_confroute.doctor import diagnose
from langchain_confroute.testing import ScriptedChat


def openai(**settings):
    """The real class of the OpenAI package, on loopback."""
    return ChatOpenAI(model="small", max_retries=0, **settings)


def test_a_server_is_examined_through_its_real_package(openai_server):
    """Log-probabilities, usage and streaming work; samples that never differ and tools that are never called do not."""
    found = diagnose(edge=openai(), cloud=ScriptedChat.of("4"))
    assert found.ok
    works = {check.name: check.ok for check in found.checks["edge"]}
    assert works["answers"] is works["logprobs"] is works["usage"] is True
    assert works["sampling"] is works["tools"] is works["structured output"] is False
    assert found.signals["token_logprob"] == "possible"
    assert "do not differ" in found.signals["self_consistency"]
    assert [gate.signal.name for gate in found.policy.gates] == ["token_logprob"]


def test_one_is_one(openai_server):
    """A token and a chunk are no tokens and chunks."""
    openai_server.answer = "4"
    found = diagnose(edge=openai(), cloud=ScriptedChat.of("4"))
    seen = {(tier, check.name): check.detail for tier, checks in found.checks.items() for check in checks}
    assert seen["edge", "logprobs"] == "1 token"
    assert seen["cloud", "streaming"] == "1 chunk: the answer comes in one piece"


def test_samples_that_differ_allow_the_sampling_signals(openai_server):
    """A server that answers differently each time is seen to."""
    names = iter(range(10_000))
    openai_server.respond = lambda body: (f"Robot {next(names)}", -0.1)
    found = diagnose(edge=openai(), cloud=ScriptedChat.of("4"))
    assert found.signals["self_consistency"] == "possible"
    assert len(found.policy.gates) == 2


def test_context_and_price_are_told_where_they_are_known(openai_server):
    """By the model's own profile and the price list; where neither knows the model, that is said with what to give."""
    known = ChatOpenAI(model="gpt-4o-mini", max_retries=0)
    found = diagnose(edge=openai(), cloud=known)
    seen = {(tier, check.name): check for tier, checks in found.checks.items() for check in checks}
    assert seen["cloud", "context"].ok is True
    assert "128000 tokens" in seen["cloud", "context"].detail
    assert seen["cloud", "price"].ok is True
    assert "0.15 in, 0.6 out" in seen["cloud", "price"].detail
    assert seen["edge", "context"].ok is seen["edge", "price"].ok is None
    assert "Price(input_usd=" in seen["edge", "price"].detail
    assert found.ok


def test_a_global_cache_is_named_where_samples_are_the_same(openai_server):
    """Whoever set one is told that it is not the reason."""
    set_llm_cache(InMemoryCache())
    try:
        found = diagnose(edge=openai(), cloud=ScriptedChat.of("4"))
    finally:
        set_llm_cache(None)
    (sampling,) = (check for check in found.checks["edge"] if check.name == "sampling")
    assert "global cache is set" in sampling.detail


def test_a_server_that_is_not_there_gets_one_line_with_the_next_step():
    """No further checks are made of a model that does not answer."""
    found = diagnose(
        edge=openai(base_url="http://127.0.0.1:9/v1", api_key="none"), cloud=ScriptedChat.of("4")
    )
    assert not found.ok
    (check,) = found.checks["edge"]
    assert "is the server running" in check.detail
    assert found.signals == {}
    assert found.policy is None


def test_a_wrong_key_is_called_one(openai_server):
    """The 401 of a provider is translated."""
    openai_server.status = 401
    found = diagnose(edge=openai(), cloud=ScriptedChat.of("4"))
    assert "key is missing or wrong" in found.checks["edge"][0].detail


def test_nothing_is_set_on_the_models(openai_server):
    """Copies are asked."""
    edge = openai()
    before = edge.model_dump()
    diagnose(edge=edge, cloud=ScriptedChat.of("4"))
    assert edge.model_dump() == before


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_command_prints_and_exits_by_what_it_found(flags, capsys, openai_server):
    """0 with two models that answer and a signal; the table and the JSON say the same."""
    urls = ["--edge-url", openai_server.url, "--cloud-url", openai_server.url]
    code = main(["doctor", "--edge", "openai:small", "--cloud", "openai:large", *urls, *flags])
    printed = capsys.readouterr().out
    assert code == 0
    if flags:
        told = json.loads(printed)
        assert told["ok"] is True
        checks = told["tiers"]["edge"]["checks"]
        assert checks["logprobs"]["ok"] is True
        assert {"context", "price"} <= set(checks)
        assert told["policy"]["format"] == "confroute-policy"
    else:
        assert "start with: token_logprob" in printed


def test_the_command_fails_where_nobody_answers(capsys, monkeypatch):
    """Exit code 1."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    dead = ["--edge-url", "http://127.0.0.1:9/v1", "--cloud-url", "http://127.0.0.1:9/v1"]
    assert main(["doctor", "--edge", "openai:small", "--cloud", "openai:large", *dead]) == 1
    assert "the edge does not answer" in capsys.readouterr().out


def test_a_notebook_shows_the_table():
    """The view holds each check."""
    shown = diagnose(edge=ScriptedChat.of("4", logprob=-0.1), cloud=ScriptedChat.of("4"))._repr_html_()
    assert "logprobs" in shown
    assert "self_consistency" in shown


@pytest.mark.parametrize(("answer", "ok"), [("Robby the robot", False), ("4", True)])
def test_zeros_that_a_server_fills_in_are_found(openai_server, answer, ok):
    """Several log-probabilities that are all 0 were not computed; one may be, and the doctor says what to look at."""
    openai_server.respond = lambda body: (answer, 0.0)
    found = diagnose(edge=openai(), cloud=ScriptedChat.of("4"))
    check = next(check for check in found.checks["edge"] if check.name == "logprobs")
    assert check.ok is ok
    assert "exactly 0" in check.detail
    assert (found.signals["token_logprob"] == "possible") is ok
