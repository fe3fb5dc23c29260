"""The six errors that people meet first, each met for real, and the next step in each message."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike

from confroute import Breaker, Cascade, Limits, Router, TokenLogprob
from confroute.budget import Budget, Paced
from confroute.cli import main
from confroute.error_notes import noted_attempts
from confroute.errors import (
    AllTiersFailedError,
    BreakerOpenError,
    BudgetSpentError,
    DeadlineError,
    ModelError,
    NoSignalError,
    TierError,
)
from confroute.models import resilience
from confroute.models.catalog import find
from confroute.models.local import LocalModel
from confroute.remediation import failure, full_failure, next_step
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults
from langchain_confroute import ChatConfRoute
from langchain_confroute.doctor import diagnose
from llamaindex_confroute import ConfRouteLLM

ROOT = Path(__file__).parents[1]
# Nothing listens there: connections are refused.
DEAD = "http://127.0.0.1:9/v1"
NOBODY, KEY = "is the server running, and is the base URL right?", "the key is missing or wrong"
ONCE = Limits(attempts=1)
SMALL = find("smollm2-135m")


def chat(url, name):
    return ChatOpenAI(model=name, base_url=url, api_key="wrong", max_retries=0)


def llm(url, name):
    return OpenAILike(model=name, api_base=url, api_key="wrong", is_chat_model=True, max_retries=0)


def through_langchain(edge_url, cloud_url, **settings):
    models = {"edge": chat(edge_url, "small"), "cloud": chat(cloud_url, "large")}
    return ChatConfRoute(**models, edge_limits=ONCE, cloud_limits=ONCE, **settings).invoke


def through_llamaindex(edge_url, cloud_url, **settings):
    models = {"edge": llm(edge_url, "small"), "cloud": llm(cloud_url, "large")}
    return ConfRouteLLM(**models, edge_limits=ONCE, cloud_limits=ONCE, **settings).complete


BOTH = pytest.mark.parametrize("host", [through_langchain, through_llamaindex])


@pytest.fixture
def server():
    """Two models on loopback: the edge doubts, the cloud's key is wrong."""
    models = {
        "small": ScriptedModel([Reply(text="hm", logprob=-3.0)]),
        "large": ScriptedModel([Reply(fault=faults.status(401))]),
        "silent": ScriptedModel([Reply(text="Paris", logprob=None)]),
    }
    with ScriptedServer(models) as running:
        yield running


@pytest.mark.parametrize(
    ("missing", "code", "command"),
    [
        ("langchain_core", "import langchain_confroute", "pip install 'confroute[langchain]'"),
        ("llama_index", "import llamaindex_confroute", "pip install 'confroute[llamaindex]'"),
        ("langchain", "import langchain_confroute.middleware", "pip install 'confroute[agents]'"),
        (
            "torch",
            "from langchain_confroute import ChatLocal; ChatLocal(model='smollm2-135m').invoke('?')",
            "pip install 'confroute[local]'",
        ),
    ],
)
def test_a_missing_package_is_an_error_with_the_command_that_installs_it(missing, code, command):
    """In a fresh interpreter in which the package cannot be found."""
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide + code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith(command)


@BOTH
def test_an_edge_that_is_not_running_is_named_with_what_to_check(host, server, caplog):
    """The cloud answers, the log says why; if the cloud is not there either, the error says it of both."""
    server.models["large"] = ScriptedModel(["Paris"])
    host(DEAD, server.url)("Capital of France?")
    assert NOBODY in caplog.text
    with pytest.raises(AllTiersFailedError) as raised:
        host(DEAD, DEAD)("Capital of France?")
    assert str(raised.value).count(NOBODY) == 2


@BOTH
def test_a_wrong_key_is_called_one(host, server):
    """A 401 of the cloud after a rejected draft."""
    with pytest.raises(TierError, match=KEY):
        host(server.url, server.url)("Capital of France?")


@BOTH
def test_no_logprobs_lead_to_the_doctor(host, server):
    """Whether the policy raises or lets the cloud answer."""
    server.models["small"], server.models["large"] = server.models["silent"], ScriptedModel(["Paris"])
    strict = Cascade.of(TokenLogprob(), 0.2, on_no_signal="raise")
    with pytest.raises(NoSignalError, match=r"no log-probabilities.*`confroute doctor` tells which"):
        host(server.url, server.url, policy=strict)("Capital of France?")
    answer = host(server.url, server.url, policy=Cascade.of(TokenLogprob(), 0.2))("Capital of France?")
    told = getattr(answer, "response_metadata", None) or answer.additional_kwargs
    assert "`confroute doctor` tells which" in told["confroute"]["reason"]


def test_the_doctor_says_the_same(server):
    """Of a refused port and of a 401."""
    found = diagnose(edge=chat(DEAD, "small"), cloud=chat(server.url, "large"))
    assert NOBODY in found.checks["edge"][0].detail
    assert KEY in found.checks["cloud"][0].detail


def test_a_recording_that_fails_shows_the_first_error(tmp_path, capsys, monkeypatch):
    """With the next step: the rows alone would have to be read for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "1", "prompt": "2 + 2?", "reference": 4}))
    out = str(tmp_path / "run.jsonl")
    assert (
        main(["record", str(prompts), "--out", out, "--edge", "openai:small", "--edge-base-url", DEAD]) == 1
    )
    assert NOBODY in capsys.readouterr().out


def test_a_hub_that_cannot_be_reached_leads_to_what_needs_none(monkeypatch, tmp_path):
    """Neither a folder nor a file of the hub can be had without it."""
    pytest.importorskip("torch")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/nothing", "nobody/nothing:nothing.gguf"):
        with pytest.raises(ModelError, match=r"the network.*`confroute models`, which needs no hub"):
            LocalModel.load(name)


def test_a_damaged_download_is_not_called_missing(tmp_path, monkeypatch):
    """A file cut short in a copy of the cache: pulling fetches it again."""
    if not SMALL.path.exists():
        pytest.skip("needs smollm2-135m: confroute pull smollm2-135m")
    source = SMALL.folder
    monkeypatch.setenv("CONFROUTE_CACHE", str(tmp_path))
    folder = tmp_path / "smollm2-135m"
    folder.mkdir()
    for name in ("confroute-pull.json", SMALL.path.name):
        shutil.copy(source / name, folder / name)
    os.truncate(folder / SMALL.path.name, 1_000_000)
    with pytest.raises(ModelError, match=r"is damaged or of another version: `confroute pull smollm2-135m`"):
        LocalModel.load("smollm2-135m")
    with pytest.raises(ModelError, match=r"damaged, incomplete or unsupported GGUF file.*download it again"):
        LocalModel.load(str(folder / SMALL.path.name))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (faults.status(403), "rights"),
        (faults.status(404), "check the model's name"),
        (faults.rate_limited(), "limit"),
        (faults.status(401, "openai"), KEY),
        (ConnectionResetError(), ""),
        (RuntimeError("?"), ""),
    ],
)
def test_statuses_and_classes_have_their_next_steps(error, words):
    """None is made up where nothing is known."""
    step = next_step(error)
    assert words in step
    assert bool(step) is bool(words)


def test_the_cause_of_a_wrapped_error_is_looked_at():
    """Hosts wrap what they got."""
    outer = RuntimeError("the call failed")
    outer.__cause__ = ConnectionRefusedError()
    assert NOBODY in next_step(outer)


def test_no_text_of_the_prompt_is_logged_with_a_failure(server, caplog):
    """An error's own text may repeat the prompt; only its class and the next step stand in the decision."""
    with caplog.at_level(logging.DEBUG, logger="confroute"):
        server.models["large"] = ScriptedModel(["fine"])
        through_langchain(DEAD, server.url)("xyzzy?")
    assert "xyzzy" not in caplog.text


def spent(edge, cloud, cascade):
    """A router whose budget has room for one call of the cloud."""
    budget = Budget(limit=1, unit="calls")
    return Router(
        edge=edge, cloud=cloud, policy=Paced(policy=cascade, budgets=(budget,), store=MemoryStore())
    )


def breaker_open(edge, cloud, cascade):
    """A router whose cloud has failed once, which opens its breaker."""
    limits = Limits(attempts=1, breaker=Breaker(failures=1))
    return Router(edge=edge, cloud=cloud, policy=cascade, cloud_limits=limits)


@pytest.mark.parametrize(
    ("made", "first", "words"),
    [
        (
            spent,
            "four",
            "cloud was not asked (BudgetSpentError: budget 'cloud' has 0 calls left and this call",
        ),
        (breaker_open, Reply(fault=faults.status(503)), "cloud was not asked (BreakerOpenError after "),
    ],
)
def test_a_tier_that_was_not_asked_has_not_failed(made, first, words):
    """The decision says why nobody asked it."""
    cloud = ScriptedModel([first, "four"], name="large")
    edge = ScriptedModel([Reply(text="5", logprob=-3.0)], name="small")
    router = made(edge, cloud, Cascade.of(TokenLogprob(), 0.1, on_cloud_error="edge"))
    router.ask("2 + 2?")
    decision = router.ask("2 + 2?").decision
    assert len(cloud.calls) == 1
    assert decision.degraded
    assert words in decision.reason
    assert "failed (" not in decision.reason


@pytest.mark.parametrize("kind", [BudgetSpentError, DeadlineError, BreakerOpenError])
def test_what_is_held_back_after_an_attempt_has_failed(kind):
    """A retry that was not allowed any more: the attempt before it failed, and is the cause."""
    numbers = {
        BudgetSpentError: {"budget": "day", "wanted": 1, "left": 0, "unit": "calls", "renewed_in_s": 60},
        DeadlineError: {"tier": "cloud", "left_s": 0.0},
        BreakerOpenError: {"tier": "cloud", "failures": 3, "retry_in_s": 30},
    }
    error = kind(**numbers[kind])
    assert failure("cloud", error).startswith(f"cloud was not asked ({kind.__name__}")
    assert full_failure("cloud", error) == f"cloud was not asked ({kind.__name__}: {error})"
    error.__cause__ = ConnectionRefusedError(111, "refused")
    assert failure("cloud", error).startswith(f"cloud failed ({kind.__name__}")


def test_a_retry_that_has_no_time_left_is_no_attempt(monkeypatch):
    """It was not made: the one before it is counted, and is its cause."""
    left = iter([10.0, 10.0, 0.0])
    limits = Limits(attempts=3, wait_s=0.0)

    def refused():
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(resilience, "time_left", lambda: next(left))
    with pytest.raises(DeadlineError) as caught:
        resilience.attempt(limits, "cloud", refused)
    assert noted_attempts(caught.value) == 1
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
