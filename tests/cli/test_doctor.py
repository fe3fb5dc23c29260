"""`confroute doctor` and `diagnose`: real calls, real findings."""

import argparse
import json
import re

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

from confroute import cli, doctor
from confroute.cli import main
from confroute.models.local import LocalTextModel
from confroute.models.openai import OpenAIModel
from confroute.testing import Reply, ScriptedModel
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


# What servers say of a model in their list, and what it means: tokens, and whether the server keeps to them.
LISTED = {
    "llama.cpp": (
        {"meta": {"n_ctx": 2048, "n_ctx_train": 8192}},
        "2048 tokens, says the server (meta.n_ctx)",
    ),
    "an older llama.cpp": ({"meta": {"n_ctx_train": 8192}}, "trained on 8192 tokens, says the server"),
    "vLLM": ({"max_model_len": 4096}, "4096 tokens, says the server (max_model_len)"),
    "OpenRouter": ({"context_length": 131072}, "131072 tokens, says the server (context_length)"),
    "Groq": ({"context_window": 131072}, "131072 tokens, says the server (context_window)"),
    "one model under another name": (
        {"id": "file.gguf", "max_model_len": 4096, "alone": True},
        "4096 tokens",
    ),
    "Mistral": ({"max_context_length": 32768}, "32768 tokens, says the server (max_context_length)"),
}


def checks_of(found, tier="edge"):
    return {check.name: check for check in found.checks[tier]}


@pytest.mark.parametrize(("listed", "words"), LISTED.values(), ids=LISTED)
def test_the_context_that_a_server_names_is_told(openai_server, listed, words):
    """By its list of models: of the model's own entry, or of the only one."""
    others = [] if "alone" in listed else [{"id": "other", "max_model_len": 7}]
    openai_server.listed = [*others, {"id": "small", **listed}]
    found = doctor.diagnose(edge=OpenAIModel(model="small"), cloud=ScriptedModel(["4"]))
    assert checks_of(found)["context"].ok is True
    assert words in checks_of(found)["context"].detail


@pytest.mark.parametrize("listed", [None, [], [{"id": "small"}], [{"id": "small", "max_model_len": 0}]])
def test_a_server_that_names_no_context_leaves_it_open(openai_server, listed):
    """No list of models (its GET is answered 501), no entry, no field, or no number."""
    openai_server.listed = listed
    found = doctor.diagnose(edge=OpenAIModel(model="small"), cloud=ScriptedModel(["4"]))
    assert checks_of(found)["context"].ok is None


def test_a_local_model_tells_its_context(tiny):
    """Without loading it twice."""
    found = doctor.diagnose(edge=LocalTextModel(model=tiny, max_tokens=4), cloud=ScriptedModel(["4"]))
    assert checks_of(found)["context"].detail == f"{tiny.context_window} tokens"


def test_what_a_server_can_is_tried(openai_server):
    """Several answers to one request, and token counts in streams: both work where they came."""
    openai_server.several = True
    found = checks_of(doctor.diagnose(edge=OpenAIModel(model="small"), cloud=ScriptedModel(["4"])))
    assert found["several at once"].ok is found["usage in streams"].ok is found["sampling"].ok is True
    openai_server.several = False
    found = checks_of(doctor.diagnose(edge=OpenAIModel(model="small"), cloud=ScriptedModel(["4"])))
    assert found["several at once"].detail.startswith("1 of 4 answers to one request came")
    openai_server.refuse = lambda body: (400, "one only") if body.get("n") else None
    found = checks_of(doctor.diagnose(edge=OpenAIModel(model="small"), cloud=ScriptedModel(["4"])))
    assert (found["several at once"].ok, found["sampling"].ok) == (False, False)
    assert "refused (400)" in found["several at once"].detail
    assert "are all the same" in found["sampling"].detail, "samples were drawn all the same, one by one"


def test_a_row_is_told_as_soon_as_it_is_known():
    """The edge's first row comes while the cloud has not been asked yet."""
    cloud = ScriptedModel([Reply(text="4")], name="large")
    asked = []
    found = doctor.diagnose(
        edge=ScriptedModel([Reply(text="4", logprob=-0.01)], name="small"),
        cloud=cloud,
        seen=lambda tier, check: asked.append((tier, check, len(cloud.calls))),
    )
    assert [(tier, check) for tier, check, _ in asked] == [
        (tier, check) for tier, checks in found.checks.items() for check in checks
    ]
    assert {calls for tier, _, calls in asked if tier == "edge"} == {0}


def test_json_goes_to_standard_output_and_rows_to_the_other(capsys, openai_server):
    """A program reads one, somebody who waits the other."""
    both = ["--edge", "openai:small", "--cloud", "openai:large"]
    assert main(["doctor", *both, "--json"]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert re.search(r"^edge +logprobs +yes +1 token$", printed.err, re.MULTILINE)
    assert re.search(r"^signal +mc_dropout +no ", printed.err, re.MULTILINE)


def flags_of(parser):
    """All flags of a parser and its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from flags_of(subparser)


def test_every_flag_that_a_row_names_exists(openai_server):
    """In the command that the row names, for both tiers."""
    found = doctor.diagnose(edge=OpenAIModel(model="small"), cloud=OpenAIModel(model="large"))
    (commands,) = (a.choices for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    named = []
    for tier, _, _, detail in found.rows():
        for flag in re.findall(r"--[a-z][a-z-]+", detail):
            (command,) = re.findall(r"`confroute ([a-z]+)", detail)
            assert flag in set(flags_of(commands[command])), detail
            named.append((tier, flag))
    assert named == [("edge", "--edge-price"), ("cloud", "--cloud-price")]
