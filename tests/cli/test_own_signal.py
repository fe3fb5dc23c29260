"""A signal of the user's own module, from a recording to a deployed policy by commands alone."""

import json
import subprocess
import sys

from confroute.cli import main

MODULE = '''
from dataclasses import dataclass

from confroute import Measurement
from confroute.policy import register
from confroute.signals.base import Range


@register(kind="signal", needs="nothing", columns={"hedging": {}})
@dataclass(frozen=True, kw_only=True)
class Hedging:
    """Words of doubt in the draft."""

    weight: float = 1.0
    name = "hedging"
    range = Range(unit="words")

    def measure(self, case):
        yield from ()
        return Measurement(signal=self.name, uncertainty=self.weight * case.draft.text.count("maybe"))


def edge(messages):
    number = int(messages[-1].text.split()[-1])
    return "maybe 8" if number % 2 else "7"
'''


def confroute(folder, *args):
    """The command in a process of its own, where nothing is registered yet."""
    command = [sys.executable, "-m", "confroute", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_recorded_fitted_and_applied(tmp_path):
    """By its registered name; without the import no command knows it."""
    (tmp_path / "hedges.py").write_text(MODULE)
    rows = [
        {"id": str(i), "prompt": f"How many? {i}", "reference": 7, "cloud": {"text": "7", "quality": 1.0}}
        for i in range(60)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = ["record", "prompts.jsonl", "--out", "run.jsonl", "--edge", "hedges:edge", "--samples", "0"]
    done = confroute(tmp_path, *record, "--signals", "Hedging(weight=2.0)", "--import", "hedges")
    assert done.returncode == 0, done.stderr
    fit = ["fit", "run.jsonl", "--out", "policy.json", "--signal", "hedging", "--cloud-share", "0.5"]
    assert "policy.json" in confroute(tmp_path, *fit, "--import", "hedges").stdout
    assert json.loads((tmp_path / "policy.json").read_text())["policy"]["gates"][0]["signal"]["weight"] == 2.0
    applied = confroute(tmp_path, "apply", "policy.json", "run.jsonl", "--json", "--import", "hedges")
    # Half of the drafts hedge, and those are the wrong ones.
    expected = json.loads(applied.stdout)["expected"]
    assert (expected["cloud_share"], expected["quality"]) == (0.5, 1.0)
    unknown = confroute(tmp_path, "apply", "policy.json", "run.jsonl")
    assert unknown.returncode == 1
    assert "Hedging" in unknown.stderr


def test_a_module_that_is_not_there_is_named(capsys):
    """In one line, as every error."""
    assert main(["apply", "policy.json", "run.jsonl", "--import", "no_such_module"]) == 1
    assert "module 'no_such_module' cannot be imported" in capsys.readouterr().err
