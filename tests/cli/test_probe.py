"""`confroute probe`: states of a recorded run to a probe file, judged out of fold."""

import json

import numpy as np
import pytest

pytest.importorskip("safetensors")

from safetensors.numpy import save_file

from confroute.cli import main
from confroute.recording import RecordedSample, Row, Side, write_rows
from confroute.signals.probe import ProbeWeights


@pytest.fixture
def run(tmp_path):
    """120 rows whose second layer tells wrong answers, whose first one is noise; wrong ones have mixed samples."""
    generator = np.random.default_rng(0)
    (tmp_path / "run.hidden").mkdir()
    rows = []
    for i in range(120):
        wrong = bool(generator.random() < 0.5)
        states = generator.normal(size=(2, 6)).astype(np.float32)
        states[1, 0] += 3.0 if wrong else -3.0
        save_file({"layer.1": states[0], "layer.2": states[1]}, tmp_path / f"run.hidden/{i}.safetensors")
        drawn = tuple(RecordedSample(text=text) for text in ("789" if wrong else "777"))
        rows.append(
            Row(
                id=str(i),
                prompt="How many?",
                edge=Side(model="m", text="7", quality=float(not wrong), samples=drawn),
                extra={"hidden": {"file": f"run.hidden/{i}.safetensors", "layers": [1, 2]}},
            )
        )
    write_rows(tmp_path / "run.jsonl", rows)
    return tmp_path / "run.jsonl"


@pytest.mark.parametrize("target", ["wrong", "semantic_entropy"])
def test_a_probe_is_fitted_judged_and_written(run, tmp_path, capsys, target):
    """It finds the layer that tells, ranks out of fold, and is read back."""
    out = tmp_path / "probe.safetensors"
    assert main(["probe", str(run), "--out", str(out), "--target", target, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["target"], told["rows"], told["layers"]) == (target, 120, [2])
    low, high = told["auroc_ci"]
    assert 0.95 < low <= told["auroc"] <= high
    assert ("auroc_of_wrong" in told) == (target != "wrong")
    assert ProbeWeights.load(out).target == target


def test_misuse_is_refused(run, tmp_path, capsys):
    """A run without states, and a name that is no probe's; in words, on standard error."""
    write_rows(tmp_path / "bare.jsonl", [Row(id="a", edge=Side(text="7", quality=1.0))])
    assert main(["probe", str(tmp_path / "bare.jsonl"), "--out", str(tmp_path / "p.safetensors")]) == 1
    assert "expected at least 40" in capsys.readouterr().err
    assert main(["probe", str(run), "--out", str(tmp_path / "p.bin")]) == 1
    assert "ends in .safetensors" in capsys.readouterr().err
    out = str(tmp_path / "p.safetensors")
    (tmp_path / "run.hidden/7.safetensors").write_bytes(b"torn")
    assert main(["probe", str(run), "--out", out]) == 1
    assert "7.safetensors holds no arrays that can be read" in capsys.readouterr().err
    (tmp_path / "run.hidden/7.safetensors").unlink()
    assert main(["probe", str(run), "--out", out]) == 1
    assert "7.safetensors: no such file" in capsys.readouterr().err
