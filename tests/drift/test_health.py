"""Whether a running policy keeps its promise: what a log proves, and what it does not."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from confroute import Cascade, Gate, Router, Threshold, TokenLogprob, background
from confroute.decision import Decision, Measurement, Step
from confroute.drift import Audited, DriftTest, GrowingHealth, health, hourly, promise_of
from confroute.errors import LogError, PolicyError
from confroute.observe import AuditedLoss
from confroute.observe import log as log_module
from confroute.observe.log import DecisionLog, Entry, LoggedLoss, read_all, read_log
from confroute.observe.trace import publish, publish_loss
from confroute.prices import Price
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage

PLAIN = Cascade.of(TokenLogprob(), 0.3)
START = datetime(2026, 1, 1, 8, tzinfo=UTC)


def audited(level=0.1, **more):
    """A policy that promises a mean loss of its kept answers."""
    return Audited(policy=PLAIN, test=DriftTest(level=level), store=MemoryStore(), **more)


def certified(loss="error", alpha=0.1):
    """A policy whose certificate is about all calls, or about kept answers."""
    chance = np.random.default_rng(0)
    doubts = chance.random(600)
    threshold = Threshold.certify(
        doubts.tolist(), (chance.random(600) > 0.05 * doubts).astype(float).tolist(), alpha=alpha, loss=loss
    )
    return Cascade(gates=(Gate(signal=TokenLogprob(), threshold=threshold),))


def losses(*values, name="edge"):
    return [AuditedLoss(name=name, loss=value) for value in values]


def decision(route="edge", stage="draft", **more):
    return Decision(route=route, stage=stage, reason="", **more)


@pytest.mark.parametrize(
    ("lines", "verdict", "ok"),
    [
        (losses(*[0.0] * 100), "held", True),
        (losses(*[1.0] * 20), "broken", False),
        (losses(*[0.0] * 9, 1.0), "not told", True),
        ([decision()], "not audited", True),
        # Of other audits in the same process.
        (losses(*[1.0] * 20, name="other"), "not audited", True),
    ],
)
def test_what_the_losses_prove(lines, verdict, ok):
    found = health(lines, audited())
    assert (found.verdict, found.ok) == (verdict, ok)
    assert found.words.startswith(verdict)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["ok"] is ok


def test_broken_is_said_when_the_live_alarm_is_raised():
    """The same test at the same rate, after the same audit."""
    values = (np.random.default_rng(5).random(200) < 0.3).astype(float).tolist()
    found = health(losses(*values), audited())
    assert found.broken_at == DriftTest(level=0.1, false_alarm=0.05).first_alarm(values)
    assert found.loss.low >= 0.1


def test_a_promise_about_all_calls_counts_those_that_the_cloud_answered():
    """Drawn for an audit, and lost nothing: with them one loss in three is one in six."""
    policy = certified()
    drawn = decision("cloud", layers={"audit": {"propensity": 0.0, "audited": False, "drawn": True}})
    undrawn = decision("cloud", layers={"audit": {"propensity": 0.0, "audited": False}})
    lines = [*losses(0.0, 0.0, 1.0), drawn, drawn, drawn, undrawn]
    found = health(lines, policy)
    assert (found.promise.level, found.promise.of) == (0.1, "calls")
    assert (found.loss.n, found.loss.mean) == (6, pytest.approx(1 / 6))
    kept = health(lines, certified("selective"))
    assert (kept.promise.of, kept.loss.n) == ("kept answers", 3)


def test_a_policy_without_a_promise():
    """Its calls are counted all the same."""
    found = health([decision(), decision("cloud")], PLAIN)
    assert (found.verdict, found.ok, found.promise) == ("no promise", True, None)
    assert (found.calls, found.cloud) == (2, 1)
    assert promise_of(certified("net")) is None


def test_calls_and_costs_by_the_hour():
    """By hand: a kept call and an audit in the first hour, a failed and an abandoned one in the third."""
    used = (Step(kind="final", tier="cloud", usage=Usage(input_tokens=1000, output_tokens=100)),)
    lines = [
        Entry(at=START, decision=decision()),
        LoggedLoss(
            at=START + timedelta(minutes=59),
            loss=AuditedLoss(name="edge", loss=0.0, tier="cloud", usage=Usage(input_tokens=2000)),
        ),
        Entry(at=START + timedelta(hours=2), decision=decision("cloud", "failed", steps=used)),
        Entry(at=START + timedelta(hours=2, minutes=1), decision=decision("cloud", "abandoned", steps=used)),
        Entry(at=START + timedelta(hours=2, minutes=2), decision=decision("cloud", steps=used)),
    ]
    prices = {"cloud": Price(input_usd=1.0, output_usd=10.0)}
    found = health(lines, audited(), prices=prices)
    first, third = found.hours
    assert (first.start, first.calls, first.cloud, first.spent_usd) == (START, 1, 0, pytest.approx(0.002))
    assert (third.calls, third.cloud, third.spent_usd) == (3, 1, pytest.approx(0.006))
    assert third.unanswered == {"failed": 1, "cancelled": 0, "abandoned": 1}
    assert (found.calls, found.cloud, found.spent_usd) == (4, 1, pytest.approx(0.008))
    assert "25.0% failed" in found.words
    assert "25.0% abandoned" in found.words
    assert hourly(lines)[0].spent_usd is None


def test_since_leaves_out_what_is_older():
    """Calls of an earlier policy say nothing of this one."""
    old = [LoggedLoss(at=START, loss=one) for one in losses(*[1.0] * 20)]
    new = [LoggedLoss(at=START + timedelta(days=1), loss=one) for one in losses(*[0.0] * 60)]
    assert health([*old, *new], audited()).verdict == "broken"
    assert health([*old, *new], audited(), since=START + timedelta(hours=1)).verdict == "held"
    with pytest.raises(PolicyError, match="offset from UTC"):
        health([], audited(), since=datetime(2026, 1, 1))


def test_calls_unlike_the_recorded_ones_are_told_and_break_nothing():
    from confroute.fitting import CloudShare, fit
    from confroute.recording import Row, Side

    rows = [Row(id=str(i), edge=Side(text="7", logprobs=(-i / 400,), quality=1.0)) for i in range(400)]
    policy = fit(rows, CloudShare(share=0.3), signal="token_logprob.mean").policy
    name = policy.gates[0].signal.name

    def calls(shift):
        return [
            decision(
                signals={name: Measurement(signal=name, uncertainty=shift + i / 60)},
                steps=(Step(kind="draft", tier="edge"),),
            )
            for i in range(60)
        ]

    assert "recorded" not in health(calls(0.0), policy).words
    shifted = health(calls(1.0), policy)
    assert "not like the recorded ones" in shifted.words
    assert shifted.ok


def run_audited(path, edge, cloud, calls=30):
    """Calls through a router, each kept one audited, in a log."""
    policy = audited(share=1.0)
    router = Router(
        edge=ScriptedModel([edge], name="small"), cloud=ScriptedModel([cloud], name="large"), policy=policy
    )
    with DecisionLog(path):
        for _ in range(calls):
            router.ask("the secret question")
        assert background.wait()
    return policy


@pytest.mark.parametrize(("cloud", "verdict"), [("5", "held"), ("7", "broken")])
def test_a_log_of_real_calls(tmp_path, cloud, verdict):
    """An edge that agrees with the cloud, and one that does not; the log holds the losses and none of the texts."""
    path = tmp_path / "log.jsonl"
    policy = run_audited(path, Reply(text="5", logprob=-0.1), cloud, calls=60)
    found = health(path, policy)
    assert (found.verdict, found.loss.n, found.calls) == (verdict, 60, 60)
    assert policy.state()["audits"] == 60
    assert "secret" not in path.read_text()
    assert len([*read_log(path)]) == 60
    assert {line.loss.tier for line in read_all(path) if isinstance(line, LoggedLoss)} == {"cloud"}


def test_an_escalated_call_that_was_drawn_is_marked(tmp_path):
    """Only one that would have been audited: a call that a rule sends is not."""
    path = tmp_path / "log.jsonl"
    run_audited(path, Reply(text="5", logprob=-2.0), "7", calls=1)
    (entry,) = read_log(path)
    assert entry.decision.layers["audit"] == {"propensity": 0.0, "audited": False, "drawn": True}
    policy = audited(share=1.0)
    router = Router(
        edge=ScriptedModel(["5"], name="small"), cloud=ScriptedModel(["7"], name="large"), policy=policy
    )
    assert "drawn" not in router.ask("?", route="cloud").decision.layers["audit"]


def test_a_log_from_before_audits_were_logged_reads(tmp_path):
    """And one whose loss is none is refused, with its place."""
    path = tmp_path / "log.jsonl"
    line = {"at": START.isoformat(), **decision().to_dict()}
    path.write_text(json.dumps(line) + "\n")
    assert health(path, audited()).calls == 1
    with path.open("a") as file:
        file.write(json.dumps({"at": START.isoformat(), "audited": {"name": "edge", "loss": 2}}) + "\n")
    with pytest.raises(LogError, match=r"line 2.*audited\.loss"):
        health(path, audited())


@pytest.mark.parametrize(
    "note",
    [
        {"propensity": 0.0, "audited": False, "skipped": "BudgetSpentError"},
        {"propensity": 0.5, "audited": True},
    ],
)
def test_audits_that_are_missing_prove_nothing(note):
    """Skipped for a spent budget, or failed: what is not known of a kept answer may be the worst."""
    drawn = decision("cloud", layers={"audit": {"propensity": 0.0, "audited": False, "drawn": True}})
    kept = decision(layers={"audit": note})
    policy = Audited(policy=certified(loss="error"), test=DriftTest(level=0.1), store=MemoryStore())
    some = losses(0.0) if note["audited"] else []
    assert health([drawn] * 150, policy).verdict == "held"
    found = health([*[drawn] * 150, *some, *[kept] * 150], policy)
    assert (found.verdict, found.missing, found.loss.mean) == ("not told", 150 - len(some), 0.0)
    assert "audits are missing" in found.words
    assert found.to_dict()["missing"] == found.missing


def test_a_log_that_grows_is_told_as_if_it_were_read_whole(tmp_path, monkeypatch):
    """After each call, and after the file was renamed; each line is read once as long as it is not."""
    path, policy, read = tmp_path / "log.jsonl", audited(), []
    of_line = log_module._line
    monkeypatch.setattr(log_module, "_line", lambda data: read.append(data) or of_line(data))
    prices = {"cloud": Price(input_usd=1.0, output_usd=2.0)}
    paid = Step(kind="final", tier="cloud", usage=Usage(input_tokens=5, output_tokens=5))
    with DecisionLog(path):
        publish(decision())
    watched = GrowingHealth(path, policy, prices=prices)
    for size, lines in ((10_000_000, 3), (10_000_000, 2), (900, None)):
        with DecisionLog(path, max_bytes=size, backups=1):
            publish(decision("cloud", steps=(paid,)))
            publish_loss(AuditedLoss(name="edge", loss=0.5))
        read.clear()
        found = watched()
        # The first time there is a line more; of a renamed file all are read.
        assert lines in {None, len(read)}
        assert found == health(path, policy, prices=prices)
