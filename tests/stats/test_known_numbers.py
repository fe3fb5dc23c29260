"""Statistics of recorded data whose values are known from elsewhere."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from confroute.stats.metrics import apgr, apgr_binned

DATA = Path(os.environ.get("CONFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))


def routellm(name, files):
    """Mixtral's and GPT-4's correctness and the prompts' lengths, without contaminated rows."""
    folder = DATA / "routellm/evals" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set CONFROUTE_DATA to the folder of recorded data")
    lines = (folder / "contaminated_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    dropped = {json.loads(line)["eval_prompt"] for line in lines if line}
    rows = []
    for path in sorted(folder.glob(files)):
        with path.open(encoding="utf-8", newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["prompt"] not in dropped]
    models = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
    weak, strong = (np.array([row[model] == "True" for row in rows], dtype=float) for model in models)
    return weak, strong, np.array([len(row["prompt"]) for row in rows], dtype=float)


@pytest.mark.parametrize(
    ("name", "files", "n", "by_length", "by_oracle"),
    [
        ("gsm8k", "gsm8k_responses.csv", 1307, 0.598, 1.121),
        ("mmlu", "responses/*.csv", 14037, 0.586, 1.285),
    ],
)
def test_known_numbers_of_routellms_answers(name, files, n, by_length, by_oracle):
    """The exact APGR of prompt length and of the oracle are those computed elsewhere; ten bins come close."""
    weak, strong, length = routellm(name, files)
    assert weak.size == n
    assert apgr(length, weak, strong) == pytest.approx(by_length, abs=5e-4)
    assert apgr(strong - weak, weak, strong) == pytest.approx(by_oracle, abs=5e-4)
    assert apgr_binned(length, weak, strong) == pytest.approx(by_length, abs=0.003)
