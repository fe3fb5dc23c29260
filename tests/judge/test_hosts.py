"""Judges of both hosts, alone and as a panel; and a run that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from confroute.cli import main
from confroute.judge import Judge, Pair, Single, judge_usage
from confroute.prices import Price
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute.testing import ScriptedLLM

HERE = Path(__file__).parent
USED = Usage(input_tokens=1000, output_tokens=10)
PAIR = Pair(id="1", question="2 + 2?", a="It is 4.", b="It is 5.", reference="4")


def scripted(name, choose):
    """A model whose verdict is `choose(the letter of the right answer)`, and whose grade is 8."""

    def reply(prompt):
        if "SCORE:" in prompt:
            return Reply(text="Right.\nSCORE: 8", usage=USED)
        first = "A" if prompt.index("It is 4.") < prompt.index("It is 5.") else "B"
        return Reply(text=f"So.\nVERDICT: {choose(first)}", usage=USED)

    return ScriptedModel(reply, name=name)


def right(first):
    return first


def wrong(first):
    return "B" if first == "A" else "A"


def hosted(name, choose):
    """The same judge behind each host."""
    return {
        "langchain": ScriptedChat(script=scripted(name, choose)),
        "llamaindex": ScriptedLLM(model=scripted(name, choose)),
    }


@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
async def test_a_chat_model_of_either_host_judges(host):
    """Sync and async, pairs and grades: at temperature 0, with its name and tokens in the usage."""
    model = hosted("j", right)[host]
    judge = Judge(panel=(model,))
    (compared,), (graded,) = judge.compare([PAIR]), judge.grade([Single(id="1", question="?", answer="x")])
    assert (compared.winner, graded.score) == ("a", 8.0)
    assert await judge.acompare([PAIR]) == [compared]
    assert judge_usage([compared, graded]).cost_usd(
        {judge.models[0].name: Price(input_usd=1.0)}
    ) == pytest.approx(3e-3)
    script = model.script if host == "langchain" else model.model
    assert {heard.temperature for heard in script.calls} == {0.0}


async def test_a_panel_may_be_of_both_hosts_at_once():
    """Two of three decide, whatever their hosts; each judge's usage is counted under its own name."""
    panel = (
        hosted("first", right)["langchain"],
        hosted("second", wrong)["llamaindex"],
        hosted("third", right)["llamaindex"],
    )
    judge = Judge(panel=panel)
    (result,) = judge.compare([PAIR])
    assert (result.winner, [vote.winner for vote in result.votes]) == ("a", ["a", "b", "a"])
    assert judge_usage([result]).calls == 6
    assert len(judge_usage([result]).usage) == 3
    assert (await judge.acompare([PAIR]))[0].winner == "a"


def test_agreement_with_a_judge_reports_its_cost(tmp_path, capsys, monkeypatch):
    """Number of replies and USD are printed to standard error; a second run is free."""
    monkeypatch.syspath_prepend(str(HERE))
    data = tmp_path / "pairs.jsonl"
    lines = [
        {
            "id": str(n),
            "prompt": f"{n}: 2 + 2?",
            "output_1": "It is 4.",
            "output_2": "It is 5.",
            "human_label": 1,
        }
        for n in range(3)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["judge", "agreement", str(data), "--judge", "judges:right", "--price", "1,1", "--json"]
    command += ["--cache", str(tmp_path / "c.sqlite")]
    for cached, cost in ((0, "0.00606"), (6, "0")):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert next(iter(json.loads(out).values()))["all"]["agreement"] == 1.0
        assert f"6 replies, {cached} of them from the cache, {cost} USD" in err


def test_a_killed_run_pays_only_for_the_rest(tmp_path):
    """After SIGKILL in the middle of `judge compare` the same command asks for no reply that the cache holds."""
    for name, answer in (("a", "It is 4."), ("b", "It is 5.")):
        lines = [{"id": str(n), "prompt": f"{n}: 2 + 2?", "response": answer} for n in range(12)]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    heard = tmp_path / "heard"
    command = [
        sys.executable,
        "-c",
        "import sys; from confroute.cli import main; sys.exit(main())",
        "judge",
        "compare",
    ]
    command += [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--judge",
        "judges:slow",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "HEARD": str(heard), "SLOWLY_S": "0.1"}
    process = subprocess.Popen([*command, "--concurrency", "1"], env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (heard.exists() and heard.stat().st_size >= 6):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = heard.stat().st_size
    environment["SLOWLY_S"] = "0"
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert 6 <= before < 24
    assert json.loads(done.stdout)["wins_a"] == 12
    # The call that was under way when it died is asked again.
    assert heard.stat().st_size - before in (24 - before, 25 - before)
