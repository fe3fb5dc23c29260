"""Recorded data that the experiments share, as columns: uncertainty, quality of both models, cost."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

DATA = Path(os.environ.get("CONFROUTE_DATA", Path(__file__).parents[1] / "../shared/data"))


def found(path):
    """A file or folder of the recorded data."""
    if not path.exists():
        raise SystemExit(
            f"{path} is not there: set CONFROUTE_DATA to a folder with `recorded` and `routellm` in it; see docs/results.md"
        )
    return path


def lines(name, data=DATA):
    """The objects of one recorded file."""
    with gzip.open(found(data / "recorded" / name), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def nine_models(dataset, edge="llama3.1-8b", cloud="llama3.1-405b"):
    """Uncertainty (nats of the answer's token), edge and cloud correctness, edge and cloud USD a call."""
    rows = [r["models"] for r in lines("nine_models_mmlu_medmcqa.jsonl.gz") if r["dataset"] == dataset]
    return (
        np.array([-r[edge]["conf_logprob"] for r in rows]),
        np.array([float(r[edge]["correct"]) for r in rows]),
        np.array([float(r[cloud]["correct"]) for r in rows]),
        np.array([r[edge]["cost_usd"] for r in rows]),
        np.array([r[cloud]["cost_usd"] for r in rows]),
    )


def gsm8k_samples():
    """Rows of 48 sampled answers each, whether the majority is right, and whether GPT-4 is."""
    return [r for r in lines("gsm8k_llama2_13b_x48.jsonl.gz") if r["weak_sample_answers"]]


def gsm8k():
    """Disagreement of 48 samples with their majority, and correctness of the majority and of GPT-4."""
    rows = gsm8k_samples()
    votes = [Counter(map(str, r["weak_sample_answers"])).most_common(1)[0][1] for r in rows]
    share = np.array([1 - v / len(r["weak_sample_answers"]) for v, r in zip(votes, rows, strict=True)])
    edge = np.array([float(r["weak_correct"]) for r in rows])
    return share, edge, np.array([float(r["gpt4_1106_correct"]) for r in rows])
