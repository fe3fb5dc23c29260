"""The decision log: what is written, rotated and read back."""

import asyncio
import gzip
import json
import math
import threading

import pytest

from confroute import Cascade, KeepPrivate, Limits, Message, Request, Router, SendTo, TokenLogprob
from confroute.certificate import Certificate
from confroute.cli import main
from confroute.decision import Decision, Measurement, Step
from confroute.errors import LogError
from confroute.executor import run
from confroute.observe.log import DecisionLog, GrowingLog, read_log
from confroute.observe.trace import publish, subscribe
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Usage


def route(secret="the launch code is 0000"):
    """One escalated call."""
    edge, cloud = ScriptedModel([Reply(text="maybe", logprob=-2.0)]), ScriptedModel(["surely"])
    request = Request(messages=(Message(role="user", text=secret),))
    calls = ScriptedCalls(models={"edge": edge, "cloud": cloud})
    return run(Cascade.of(TokenLogprob(), 0.1), request, calls.call(request), {}).decision


def test_a_logged_decision_reads_back_equal(tmp_path):
    """Nothing of a decision is lost but digits beyond the sixth."""
    with DecisionLog(tmp_path / "log.jsonl"):
        made = route()
    (entry,) = read_log(tmp_path / "log.jsonl")
    read, written = entry.decision.to_dict(), made.to_dict()
    assert read.pop("latency_s") == pytest.approx(written.pop("latency_s"), abs=1e-5)
    assert read == written
    assert entry.at.utcoffset().total_seconds() == 0


def test_no_text_of_prompt_or_answer_is_written(tmp_path):
    """A log can be shown to people who may not read the conversation."""
    with DecisionLog(tmp_path / "log.jsonl"):
        route("the launch code is 0000")
    written = (tmp_path / "log.jsonl").read_text()
    assert "launch" not in written
    assert "maybe" not in written
    assert "surely" not in written


def test_rotation_keeps_the_newest_and_reads_in_order(tmp_path):
    """Renamed files are read first, and only so many are kept."""
    path = tmp_path / "log.jsonl"
    with DecisionLog(path, max_bytes=2000, backups=2):
        for number in range(30):
            publish(Decision(route="edge", stage="draft", reason=f"number {number}"))
    reasons = [entry.decision.reason for entry in read_log(path)]
    assert len(list(tmp_path.iterdir())) == 3
    assert 3 < len(reasons) < 30
    assert reasons == [f"number {n}" for n in range(30 - len(reasons), 30)]


def test_threads_write_whole_lines(tmp_path):
    """Eight threads at once lose nothing."""
    path = tmp_path / "log.jsonl"
    with DecisionLog(path):
        threads = [threading.Thread(target=lambda: [route() for _ in range(20)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(1 for _ in read_log(path)) == 160


def test_a_closed_log_writes_no_more(tmp_path):
    """`close` ends it, twice too."""
    log = DecisionLog(tmp_path / "log.jsonl")
    log.close()
    log.close()
    route()
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_a_line_that_cannot_be_written_is_an_error_of_the_call(tmp_path):
    """A log that silently loses decisions is none."""
    with DecisionLog(tmp_path / "log.jsonl"):
        bad = Decision(
            route="edge",
            stage="draft",
            reason="?",
            signals={"s": Measurement(signal="s", uncertainty=1.0, details={"x": {1}})},
        )
        with pytest.raises(TypeError, match="JSON"):
            publish(bad)


def test_a_file_that_is_no_log_is_named(tmp_path):
    """The message holds file and line."""
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"v": 1, "route": "edge"}) + "\n")
    with pytest.raises(LogError, match=r"log.jsonl, line 1: not a decision"):
        list(read_log(path))
    with pytest.raises(LogError, match="does not exist"):
        list(read_log(tmp_path / "other.jsonl"))


def test_the_same_sink_twice_is_two_subscriptions():
    """Ending one leaves the other, and ending it again does nothing."""
    seen = []
    stops = [subscribe(seen.append), subscribe(seen.append)]
    stops[0]()
    stops[0]()
    publish(Decision(route="edge", stage="draft", reason="kept"))
    stops[1]()
    publish(Decision(route="edge", stage="draft", reason="kept"))
    assert len(seen) == 1


def test_steps_and_usage_survive_the_round_trip():
    """Nested values come back as themselves."""
    step = Step(
        kind="draft", tier="edge", model="m", usage=Usage(input_tokens=1, output_tokens=2), latency_s=0.5
    )
    zones = {"token_logprob": (0.1, math.inf), "own": (-math.inf, 0.5)}
    decision = Decision(route="edge", stage="draft", reason="kept", steps=(step,), grey=zones)
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["grey"]["own"] == [None, 0.5]
    assert Decision.from_dict(decision.to_dict()) == decision
    with pytest.raises(ValueError, match="format"):
        Decision.from_dict({"v": 99, "route": "edge"})


def test_a_certified_decision_survives_the_round_trip(tmp_path):
    """What was promised comes back as a certificate, so that a log of certified calls can be shown and written again."""
    promise = Certificate(
        loss="regret",
        alpha=0.05,
        delta=0.1,
        n=100,
        method="ltt-binomial",
        observed=0.02,
        date="2026-01-01",
        data_hash="0",
    )
    decision = Decision(route="edge", stage="draft", reason="kept", certificate=promise)
    with DecisionLog(tmp_path / "log.jsonl"):
        publish(decision)
    (entry,) = read_log(tmp_path / "log.jsonl")
    assert entry.decision == decision
    assert entry.decision.to_dict() == decision.to_dict()


def test_particulars_that_json_cannot_hold_lose_no_call(tmp_path):
    """A signal of one's own may tell an infinity: the caller has the answer, and the log its line."""
    told = {"worst": float("inf"), "each": [0.5, float("nan")], "of": {"a": 1.0}}
    found = {"own": Measurement(signal="own", uncertainty=0.1, details=told)}
    with DecisionLog(tmp_path / "log.jsonl"):
        publish(Decision(route="edge", stage="draft", reason="kept", signals=found))
    (entry,) = read_log(tmp_path / "log.jsonl")
    assert entry.decision.signals["own"].details == {"worst": None, "each": [0.5, None], "of": {"a": 1.0}}


def whole_log(path, count=3):
    """A log of so many decisions."""
    with DecisionLog(path):
        for number in range(count):
            publish(Decision(route="edge", stage="draft", reason=f"number {number}"))
    return path


def test_a_torn_last_line_is_skipped_and_counted(tmp_path, caplog):
    """Of each file of the log; the rest is read."""
    path = whole_log(tmp_path / "log.jsonl")
    whole = path.read_bytes()
    for cut in (8, len(whole) // 3 - 2):
        path.write_bytes(whole + whole[:cut])
        torn = []
        assert len([*read_log(path, torn=torn.append)]) == 3
        assert torn == [f"{path}, line 4"]
    (tmp_path / "log.jsonl.1").write_bytes(whole[:-20])
    torn = []
    assert len([*read_log(path, torn=torn.append)]) == 5
    assert torn == [f"{tmp_path / 'log.jsonl.1'}, line 3", f"{path}, line 4"]
    assert len([*read_log(path)]) == 5
    assert "log.jsonl, line 4 is cut off in the middle" in caplog.text


def test_a_torn_line_in_the_middle_is_no_torn_line(tmp_path):
    """Only a crash leaves one, at the end; anything else is an error by line."""
    path = whole_log(tmp_path / "log.jsonl")
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:30] + b"\n" + b"".join(rest))
    with pytest.raises(LogError, match=r"log\.jsonl, line 1: "):
        list(read_log(path))


def test_the_report_says_what_it_skipped(tmp_path, capsys):
    """Beside the number of calls."""
    path = whole_log(tmp_path / "log.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    assert main(["report", str(path)]) == 0
    assert f"2 calls; skipped 1 line cut off in the middle: {path}, line 3" in capsys.readouterr().err


def test_a_log_that_goes_on_after_a_crash_has_whole_lines(tmp_path):
    """The torn line is cut off, and the next decision does not stick to it; a whole one gets its line break."""
    path = whole_log(tmp_path / "log.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    whole_log(path, 1)
    path.write_bytes(path.read_bytes()[:-1])
    whole_log(path, 1)
    reasons = [entry.decision.reason for entry in read_log(path, torn=pytest.fail)]
    assert reasons == ["number 0", "number 1", "number 0", "number 0"]


@pytest.mark.parametrize(
    "content", [b"Buy milk.", b"Buy milk.\nAnd tea\n", b'{"id": "a"}\n', b'{"at": 1}\nBuy milk.', b"\x1f\x8b"]
)
def test_a_file_of_another_kind_is_not_written_to(tmp_path, content):
    """It stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"notes\.txt"):
        DecisionLog(path)
    publish(Decision(route="edge", stage="draft", reason="?"))
    assert path.read_bytes() == content


ONCE = Limits(attempts=1)
DOWN = ScriptedModel([Reply(fault=ConnectionError("refused"))])
RULED = {
    "private pattern": ((KeepPrivate(patterns=("secret",), name="mine"),), "mine", True),
    "private tag": ((KeepPrivate(tags=("hush",)),), "keep_private", True),
    "another rule": ((SendTo(tier="edge", patterns=("secret",)),), "send_to", False),
    "none": ((), None, False),
}


@pytest.mark.parametrize("form", ["ask", "aask", "stream", "astream"])
@pytest.mark.parametrize("which", RULED)
def test_a_ruled_call_that_fails_is_recorded_as_it_was(tmp_path, which, form):
    """The rule and whether the text was private: a failed call is the one that is looked up."""
    rules, name, private = RULED[which]
    router = Router(edge=DOWN, cloud=lambda messages: "cloud", policy=Cascade(rules=rules), edge_limits=ONCE)
    given = {"tags": ["hush"], **({} if rules else {"route": "edge"})}

    async def awaited():
        asked = getattr(router, form)("a secret", **given)
        return [part async for part in asked] if form == "astream" else await asked

    def call():
        return (
            asyncio.run(awaited())
            if form.startswith("a") and form != "ask"
            else list(getattr(router, form)("a secret", **given))
        )

    with DecisionLog(tmp_path / "log.jsonl"), pytest.raises(ConnectionError):
        call()
    (entry,) = read_log(tmp_path / "log.jsonl")
    assert (entry.decision.stage, entry.decision.rule, entry.decision.private) == ("failed", name, private)


def growing(path):
    """The decisions that a log that grows gives each time, and whether they go on where the last ones ended."""
    log = GrowingLog(path)

    def read():
        goes_on, lines = log.read()
        return goes_on, [line.decision.reason for line in lines]

    return read


def decided(path, *reasons, **settings):
    """Append decisions to a log."""
    with DecisionLog(path, **settings):
        for reason in reasons:
            publish(Decision(route="edge", stage="draft", reason=reason))


def test_a_growing_log_is_read_from_where_it_ended(tmp_path):
    """Each line once; one that is still being written is waited for."""
    path = tmp_path / "log.jsonl"
    decided(path, "a", "b")
    read = growing(path)
    assert read() == (False, ["a", "b"])
    assert read() == (True, [])
    decided(path, "c")
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:40])
    assert read() == (True, ["c"])
    path.write_bytes(whole + whole.splitlines()[0])
    assert read() == (True, ["a"]), "whole, but for the end of its line"
    path.write_bytes(whole + whole.splitlines()[0] + b"\n")
    assert read() == (True, [])


def test_a_growing_log_is_read_anew_once_a_file_was_renamed_or_replaced(tmp_path):
    """As `read_all` gives it: what no file holds any more counts no more."""
    path = tmp_path / "log.jsonl"
    decided(path, "a", "b")
    read = growing(path)
    assert read() == (False, ["a", "b"])
    decided(path, "c" * 300, "d" * 300, max_bytes=600, backups=1)
    goes_on, reasons = read()
    assert not goes_on
    assert reasons == [line.decision.reason for line in read_log(path)]
    assert reasons[-1] == "d" * 300
    path.write_bytes(b"")
    assert read()[0] is False, "shorter than it was"
    path.unlink()
    with pytest.raises(LogError, match="does not exist"):
        read()


def test_a_broken_line_of_a_growing_log_is_told_by_its_number_each_time(tmp_path):
    """It is not passed over the next time."""
    path = tmp_path / "log.jsonl"
    decided(path, "a")
    read = growing(path)
    read()
    with path.open("a") as file:
        file.write('{"at": 1}\n')
    for _ in range(2):
        with pytest.raises(LogError, match="line 2: not a decision"):
            read()


def test_a_packed_log_is_read_whole(tmp_path):
    """As `read_all` does."""
    path = tmp_path / "log.jsonl"
    decided(path, "a")
    path.write_bytes(gzip.compress(path.read_bytes()))
    read = growing(path)
    assert read() == read() == (False, ["a"])
