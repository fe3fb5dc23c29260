"""`confroute serve` as a process: it starts, answers, logs, and ends when it is told to, after the calls that run."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

import pytest

from confroute import Cascade, TokenLogprob
from confroute.cli import main
from confroute.cli.serve import _listening
from confroute.observe.log import read_log
from confroute.policy import save_policy

MODELS = """
import time
from confroute import Generation

def small(messages):
    if "slow" in messages[-1].text:
        open("begun", "w").close()
        time.sleep(0.5)
    return Generation(text="Bern", logprobs=(-0.01,), tokens=("Bern",))

def large(messages):
    return "Geneva"
"""
QUESTION = "Capital of Switzerland?"


@pytest.fixture
def folder(tmp_path):
    """A folder with a policy and two models."""
    (tmp_path / "my_models.py").write_text(MODELS)
    save_policy(Cascade.of(TokenLogprob(), 0.3), tmp_path / "policy.json")
    return tmp_path


@contextmanager
def started(folder, *arguments, **environment):
    """The process and its URL, once it listens."""
    models = ("--edge", "my_models:small", "--cloud", "my_models:large")
    command = [sys.executable, "-m", "confroute", "serve", "policy.json", *models, "--port", "0", *arguments]
    env = {**os.environ, **environment}
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            found = re.search(r"http://\S+/v1", line)
            assert found, line + process.stderr.read()
            yield process, found[0]
        finally:
            process.kill()


def answer(url, text=QUESTION, **headers):
    """The JSON of an answer."""
    body = json.dumps({"model": "confroute", "messages": [{"role": "user", "content": text}]}).encode()
    sent = urllib.request.Request(
        f"{url}/chat/completions", body, {"content-type": "application/json", **headers}
    )
    with urllib.request.urlopen(sent) as response:
        return json.load(response)


def test_it_answers_logs_and_ends_after_what_runs(folder):
    """A signal stops it; the call that runs then is answered first, and its decision is in the log."""
    with started(folder, "--log", "decisions.jsonl") as (process, url):
        assert answer(url)["choices"][0]["message"]["content"] == "Bern"
        with urllib.request.urlopen(url.removesuffix("/v1") + "/health") as response:
            health = json.load(response)
        assert (health["status"], health["promise"], health["watched"]["calls"]) == ("ok", "no promise", 1)
        answers = []
        running = threading.Thread(target=lambda: answers.append(answer(url, "slow")))
        running.start()
        while not (folder / "begun").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        running.join()
        errors = process.stderr.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert answers[0]["choices"][0]["message"]["content"] == "Bern"
    assert "Traceback" not in errors
    log = folder / "decisions.jsonl"
    assert [entry.decision.route for entry in read_log(log)] == ["edge", "edge"]
    assert "Switzerland" not in log.read_text() + errors


def test_any_number_of_tiers(folder):
    """A model between edge and cloud answers what the edge is too unsure of."""
    (folder / "my_models.py").write_text(
        f"{MODELS}\ndef unsure(messages):\n    return Generation(text='Basel', logprobs=(-2.0,))\n"
    )
    policy = replace(Cascade.of(TokenLogprob(), 0.3), tiers=("edge", "mid", "cloud"))
    save_policy(policy, folder / "policy.json")
    with started(folder, "--edge", "my_models:unsure", "--tier", "mid=my_models:small") as (_, url):
        given = answer(url)
    assert given["choices"][0]["message"]["content"] == "Bern"
    assert given["metadata"]["confroute"]["route"] == "mid"


def test_a_key_of_the_environment_is_asked_for(folder):
    """It never stands on the command line, where every user of the machine can read it."""
    with started(folder, CONFROUTE_KEY="k") as (_, url):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            answer(url)
        assert answer(url, authorization="Bearer k")["model"] == "confroute"


def test_it_does_not_listen_beyond_this_machine_without_a_key(folder, monkeypatch, capsys):
    """The error names the variable."""
    monkeypatch.delenv("CONFROUTE_KEY", raising=False)
    monkeypatch.chdir(folder)
    models = ["--edge", "my_models:small", "--cloud", "my_models:large"]
    assert main(["serve", "policy.json", *models, "--host", "0.0.0.0"]) == 1
    assert "CONFROUTE_KEY" in capsys.readouterr().err


def test_answers_are_not_held_back():
    """asyncio switches the delay of small packets off where a socket knows that it is TCP's."""
    with _listening(argparse.Namespace(host="127.0.0.1", port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP
