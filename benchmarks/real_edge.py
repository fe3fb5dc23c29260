"""Record a real local edge on RouteLLM's MMLU prompts, with every signal that only its own weights can give.

    python benchmarks/real_edge.py OUT.jsonl [--data FOLDER] [--rows 600] [--max-chars 400] [--threads 2] [--model NAME --layers ...] [--samples 0 --dropout 0] [--max-tokens 2]

Draws rows without replacement (seed 0) from the decontaminated prompts of at most that many characters, writes them to
OUT.prompts.jsonl with their gold letter and GPT-4-1106's recorded correctness as the cloud, and runs `confroute record`
over them: by default Qwen2.5-Coder-1.5B in float32, one option letter, five samples at temperature 1, Monte Carlo dropout of ten
passes at two rates, and hidden states of seven layers. The limit is two tokens: the letter and the end of the turn, without which a draft
counts as cut off and goes to the cloud; a letter with a full stop takes three. The order is random, so that a run that was stopped early is a
random sample too. Started again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import _recorded

SYSTEM = "Answer with the letter of the right option only."
LAYERS = ["4", "8", "12", "16", "20", "24", "28"]


def prompts(data: Path, *, rows: int, max_chars: int) -> tuple[list[dict[str, Any]], int, int]:
    """Rows to be recorded, and how many prompts there are within the length and in all."""
    known = {one["id"]: one for one in _recorded.lines("mmlu_test_reference.jsonl.gz", data)}
    kept = []
    for path in sorted(_recorded.found(data / "routellm/evals/mmlu/responses").glob("mmlu_*.csv")):
        domain = path.stem.removeprefix("mmlu_")
        with path.open(encoding="utf-8", newline="") as file:
            for at, row in enumerate(csv.DictReader(file)):
                one = known[f"mmlu-{domain}-{at}"]
                if str(one["gpt4_1106_correct"]) != row["gpt-4-1106-preview"]:
                    raise SystemExit(f"{path.name}, row {at}: the reference belongs to another prompt")
                if not one["routellm_contaminated"]:
                    kept.append((one, row["prompt"]))
    short = [(one, prompt) for one, prompt in kept if len(prompt) <= max_chars]
    drawn = random.Random(0).sample(short, min(rows, len(short)))
    return [_row(one, prompt) for one, prompt in drawn], len(short), len(kept)


def _row(one: dict[str, Any], prompt: str) -> dict[str, Any]:
    cloud = {"model": "gpt-4-1106-preview", "text": None, "quality": float(one["gpt4_1106_correct"])}
    return {
        "id": one["id"],
        "dataset": "mmlu_test",
        "prompt": prompt,
        "reference": one["reference"],
        "cloud": cloud,
    }


def main() -> int:
    """Write the prompts and record them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("CONFROUTE_DATA"))
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--max-chars", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="whose hidden states are kept")
    parser.add_argument("--max-tokens", type=int, default=2)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--dropout", type=int, default=10, help="passes at each rate; 0 for none")
    parser.add_argument("--retry-errors", action="store_true")
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give --data or set CONFROUTE_DATA to the folder of the recorded data")
    made, short, every = prompts(Path(asked.data), rows=asked.rows, max_chars=asked.max_chars)
    source = asked.out.with_suffix(".prompts.jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    print(
        f"{len(made)} of {short} prompts of at most {asked.max_chars} characters ({every} in all)", flush=True
    )
    confroute = str(Path(sys.executable).with_name("confroute"))
    command = [confroute, "record", str(source), "--out", str(asked.out)]
    command += ["--edge", f"local:{asked.model}", "--dtype", asked.dtype, "--system", SYSTEM]
    command += [
        "--max-tokens",
        str(asked.max_tokens),
        "--samples",
        str(asked.samples),
        "--temperature",
        "1.0",
    ]
    if asked.dropout:
        command += ["--dropout", str(asked.dropout), "--dropout-rates", "0.01", "0.1"]
    command += ["--hidden", *asked.layers]
    command += ["--retry-errors"] if asked.retry_errors else []
    threads = {"OMP_NUM_THREADS": str(asked.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(command, check=False, env={**os.environ, **threads}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
