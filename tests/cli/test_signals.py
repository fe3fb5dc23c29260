"""`confroute signals`: table, JSON, plots and errors."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from confroute.cli import signals
from confroute.errors import ConfrouteError, PolicyError
from confroute.recording import RecordedSample, RecordError, Row, Side, write_rows
from confroute.recording.evaluation import evaluate

KEYS = {"auroc", "auroc_ci", "prr", "ece", "apgr"}


def made(n=80, *, cloud=True, dataset="made"):
    """Rows whose log-probabilities tell most errors, with samples on every second one."""
    generator = np.random.default_rng(0)
    for i in range(n):
        right = float(generator.random() < 0.5)
        doubt = abs(generator.normal(0.3 if right else 0.9, 0.3))
        texts = ("7", "7") if right else ("7", "8")
        yield Row(
            id=str(i),
            dataset=dataset,
            prompt="How many?",
            edge=Side(
                model="m",
                text="7",
                quality=right,
                logprobs=(-doubt, -0.01),
                samples=tuple(RecordedSample(text=text) for text in texts) if i % 2 else (),
            ),
            cloud=Side(model="c", quality=1.0) if cloud else None,
        )


def confroute(*argv):
    parser = argparse.ArgumentParser()
    signals.add_parser(parser.add_subparsers())
    args = parser.parse_args(["signals", *map(str, argv)])
    return args.run(args)


def test_json_has_the_documented_shape(tmp_path, capsys):
    """Exactly the keys of the format, finite numbers, and nothing else on standard output."""
    write_rows(tmp_path / "run.jsonl.gz", made())
    assert confroute(tmp_path / "run.jsonl.gz", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert list(out) == ["n", "cut_off", "edge_quality", "cloud_quality", "signals"]
    assert (out["n"], out["cloud_quality"]) == (80, 1.0)
    assert {"token_logprob.mean", "self_consistency", "semantic_entropy"} <= set(out["signals"])
    assert "option_probability" not in out["signals"], "nothing to measure it by"
    for report in out["signals"].values():
        assert set(report) == KEYS
    mean = out["signals"]["token_logprob.mean"]
    assert mean["auroc_ci"][0] < mean["auroc"] < mean["auroc_ci"][1]
    assert mean["auroc"] > 0.8
    assert mean["apgr"] > 0.6
    assert 0 <= mean["ece"] < 0.3
    assert out["signals"]["self_consistency"]["auroc"] == 1.0


def test_the_table_says_how_many_rows_were_measured(tmp_path, capsys):
    """Signals stand with their n, the best first; pooled datasets are pointed out."""
    others = [replace(row, id=f"other-{row.id}") for row in made(20, dataset="other")]
    write_rows(tmp_path / "run.jsonl", [*made(), *others])
    assert confroute(tmp_path / "run.jsonl") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("100 graded rows")
    assert "2 datasets pooled (made, other)" in out
    consistency = next(line for line in lines if "self_consistency" in line)
    assert "1.000 [1.000, 1.000]" in consistency
    assert " 50 " in consistency
    assert out.index("self_consistency") < out.index("token_logprob.mean")
    assert confroute(tmp_path / "run.jsonl", "--dataset", "other") == 0
    assert capsys.readouterr().out.startswith("20 graded rows")


def test_what_is_undefined_is_null(tmp_path, capsys):
    """Without a cloud there is no APGR, with one class no AUROC: null and a dash, not 0."""
    write_rows(tmp_path / "run.jsonl", [row for row in made(cloud=False) if row.edge.quality == 1])
    confroute(tmp_path / "run.jsonl", "--json")
    out = json.loads(capsys.readouterr().out)
    mean = out["signals"]["token_logprob.mean"]
    assert out["cloud_quality"] is None
    assert (mean["auroc"], mean["auroc_ci"], mean["prr"], mean["apgr"]) == (None, None, None, None)
    confroute(tmp_path / "run.jsonl")
    assert "not recorded" in (shown := capsys.readouterr().out)
    assert " - " in shown


def test_plots_are_well_formed_and_name_every_signal(tmp_path, capsys):
    """Both files are SVG that parses, with a diagram for each signal and a line for each of the best; JSON stays alone on standard output."""
    rows = [replace(row, signals={"<odd> & 'quoted'": 1 - row.edge.quality}) for row in made()]
    write_rows(tmp_path / "run.jsonl", rows)
    assert confroute(tmp_path / "run.jsonl", "--json", "--plot", tmp_path / "new" / "plots") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["n"] == 80
    assert "reliability.svg" in printed.err
    for name in ("reliability", "risk-coverage"):
        root = ElementTree.parse(tmp_path / "new" / "plots" / f"{name}.svg").getroot()
        words = " ".join(root.itertext())
        assert "nan" not in ElementTree.tostring(root, encoding="unicode").lower()
        if name == "reliability":
            assert "<odd> & 'quoted'" in words
            assert {"token_logprob.mean", "self_consistency"} <= {*words.split()}
    assert re.search(r"\b\d+ more\b", words)


def test_plots_of_too_few_rows_say_so(tmp_path):
    """Three rows have curves but no cross-fitted probability."""
    write_rows(tmp_path / "run.jsonl", made(3))
    assert confroute(tmp_path / "run.jsonl", "--plot", tmp_path) == 0
    assert "too few rows" in (tmp_path / "reliability.svg").read_text()


def test_errors_say_what_to_do(tmp_path):
    """No grades, an unknown dataset, a bad line, a plot that is a folder."""
    path = tmp_path / "run.jsonl"
    write_rows(path, [Row(id="a", edge=Side(text="7"))])
    with pytest.raises(RecordError, match="grade the answers"):
        confroute(path)
    write_rows(path, made(4))
    with pytest.raises(PolicyError, match=r"'none': expected one of \['made'\]"):
        confroute(path, "--dataset", "none")
    (tmp_path / "plots/reliability.svg").mkdir(parents=True)
    with pytest.raises(PolicyError, match="--plot"):
        confroute(path, "--plot", tmp_path / "plots")
    path.write_text("{}\n")
    with pytest.raises(ConfrouteError, match="line 1"):
        confroute(path)


def test_reports_repeat_and_ignore_ungraded_rows():
    """Equal seeds give equal reports; rows without a grade are counted, not measured."""
    rows = [*made(40), Row(id="u", edge=Side(text="7", logprobs=(-9.0,)))]
    first, second = (evaluate(rows, resamples=50, seed=3) for _ in range(2))
    assert first == second
    assert (first.n, first.ungraded, first.signals["token_logprob.mean"].n) == (40, 1, 40)
