"""`confroute watch`: one line of health, exit codes, and following a log that grows."""

import json
from pathlib import Path

import pytest

from confroute import Cascade, TokenLogprob
from confroute.cli import main
from confroute.decision import Decision
from confroute.drift import Audited, DriftTest
from confroute.observe.log import DecisionLog
from confroute.observe.trace import AuditedLoss, publish, publish_loss
from confroute.policy import save_policy


@pytest.fixture
def policy(tmp_path):
    """The file of a policy that promises .1."""
    path = tmp_path / "policy.json"
    save_policy(Audited(policy=Cascade.of(TokenLogprob(), 0.3), test=DriftTest(level=0.1)), path)
    return str(path)


@pytest.fixture
def log(tmp_path):
    """Adds losses, each with a call, to a log; returns its path."""
    path = tmp_path / "log.jsonl"

    def add(*losses):
        with DecisionLog(path):
            for loss in losses:
                publish(Decision(route="edge", stage="draft", reason="kept"))
                publish_loss(AuditedLoss(name="edge", loss=loss))
        return str(path)

    return add


def test_a_kept_promise(policy, log, capsys):
    """One line, and no failure."""
    assert main(["watch", log(*[0.0] * 100), "--policy", policy, "--fail-on-broken"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "held: audited loss 0.000 (n = 100 calls drawn for an audit, between 0.000 and 0.0"
    )
    assert "promised at most 0.1 over all kept answers; 100 calls, 0.0% by the cloud" in line


def test_a_broken_promise_fails_on_request_only(policy, log, capsys):
    path = log(*[1.0] * 20)
    assert main(["watch", path, "--policy", policy]) == 0
    assert main(["watch", path, "--policy", policy, "--fail-on-broken"]) == 3
    assert capsys.readouterr().out.count("broken: audited loss 1.000") == 2


def test_json_and_hours(policy, log, capsys):
    path = log(0.0)
    assert main(["watch", path, "--policy", policy, "--json", "--price", "cloud=1,2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["spent_usd"], len(found["hours"])) == ("not told", 0, 1)
    assert main(["watch", path, "--policy", policy, "--hours", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["watch", path, "--policy", policy, "--since", "2999-01-01T00:00:00+00:00"]) == 0
    assert "no calls" in capsys.readouterr().out


def test_following_prints_what_changes_and_ends_where_it_is_broken(policy, log, capsys, monkeypatch):
    """Nothing while nothing is new; a line in the middle of being written is waited for."""
    path = log(*[0.0] * 30)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            log(*[1.0] * 30)
            with Path(path).open("a") as file:
                file.write('{"at": "2026')

    monkeypatch.setattr("confroute.cli.watch.time.sleep", sleep)
    assert main(["watch", path, "--policy", policy, "--fail-on-broken", "--follow", "7"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["not told", "broken"]
    assert waits == [7, 7]


def test_wrong_arguments_say_what_is_expected(policy, log, tmp_path, capsys):
    assert main(["watch", str(tmp_path / "none.jsonl"), "--policy", policy]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["watch", log(0.0), "--policy", policy, "--since", "yesterday"]) == 2
    assert "expected a date and time" in capsys.readouterr().err
    assert main(["watch", log(0.0), "--policy", policy, "--confidence", "2"]) == 1
    assert "between 0 and 1" in capsys.readouterr().err


def test_the_report_of_a_log_tells_of_the_promise(policy, log, tmp_path):
    page = tmp_path / "page.html"
    assert main(["report", log(*[1.0] * 20), "--policy", policy, "--out", str(page)]) == 0
    assert "broken: audited loss 1.000" in page.read_text()
    assert "By the hour" in page.read_text()
