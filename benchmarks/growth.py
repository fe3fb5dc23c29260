"""How the time and the memory of the commands that read a recorded run grow with its rows.

    python benchmarks/growth.py [--rows 1000 10000 100000] [--commands signals fit apply watch ...] [--kinds recorded evidence] [--repeats 3] [--against OLD]

Synthetic rows of about 4 KB: a prompt, two answers of 24 tokens with log-probabilities, five samples. "evidence": three signals are
recorded and all others are measured anew; "recorded": all are, as `confroute record` writes them. Each command runs in a process of its
own: seconds of its CPU, which other processes' work moves less than those of a clock, the median of `--repeats` up to 10,000 rows; and
the most memory that it held (resident set). `apply` and `watch` need the policy of a `fit` before them; `watch` reads a log of as many
decisions. `--against` runs an earlier version's folder in turns with this one, and compares what both print.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from confroute.decision import Decision, Measurement, Step
from confroute.recording import Row, row_from_dict, write_rows
from confroute.recording.signals import rows_with_signals

HERE = Path(__file__).resolve().parents[1]
SEVERAL_UP_TO = 10_000
NAMES = ("Ann", "Ben", "Cem", "Dora", "Eve", "Finn", "Gil")
WORDS = [
    "first",
    "the",
    "shop",
    "counts",
    "what",
    "is",
    "left",
    "then",
    "adds",
    "all",
    "of",
    "them",
    "up",
    "so",
    "that",
]
KINDS = ("evidence", "recorded")
# Run in the child, which alone knows how much memory it held at most.
CHILD = """
import resource, sys
from confroute.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code
used = resource.getrusage(resource.RUSAGE_SELF)
open(sys.argv[1], "w").write(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss}")
sys.exit(code)
"""


def rows(n: int, *, seed: int = 0) -> Iterator[Row]:
    """Questions of every hardness, which decides how sure the edge is, how often its answers differ and how often it is right."""
    generator = np.random.default_rng(seed)
    for at in range(n):
        yield row_from_dict(row(at, generator))


def row(at, generator):
    """One row in the format of a run."""
    hardness, right = float(generator.random()), 100 + int(generator.integers(400))
    edge_right, cloud_right = (bool(generator.random() < 1 - share * hardness) for share in (0.9, 0.3))
    answers = [
        right if generator.random() < 1 - 0.9 * hardness else right + int(generator.integers(1, 5))
        for _ in range(5)
    ]
    edge = side("small", right if edge_right else right + 1, edge_right, generator, hardness)
    samples = [sample(one, hardness, generator) for one in answers]
    finish = "stop" if generator.random() < 0.98 else "length"
    return {
        "id": f"row-{at}",
        "dataset": "synthetic",
        "prompt": f"A shop has {right // 2} apples and is given {right - right // 2} more by {NAMES[at % 7]}, before it closes for the "
        "day. How many apples does it have?",
        "reference": str(right),
        "edge": {**edge, "samples": samples, "finish": finish, "temperature": 1.0},
        "cloud": side("large", right if cloud_right else right + 1, cloud_right, generator, hardness / 3),
        "signals": {
            "token_logprob.mean": -float(np.mean(edge["logprobs"])),
            "self_consistency": sum(str(one) != edge["answer"] for one in answers) / 5,
            "verbalized": round(float(generator.beta(1 + 4 * hardness, 5)), 1),
        },
        "answer_kind": "auto",
    }


def sample(answer, hardness, generator):
    """A further answer of the edge."""
    tokens = spelt(answer, generator)
    return {
        "text": "".join(tokens).strip(),
        "logprobs": logprobs(tokens, hardness, generator),
        "answer": str(answer),
        "finish": "stop",
    }


def spelt(answer, generator):
    """The tokens of an answer."""
    words = (f" {WORDS[at]}" for at in generator.integers(len(WORDS), size=18))
    return [*words, ".", " The", " answer", " is", f" {answer}", "."]


def logprobs(tokens, hardness, generator):
    """Log-probabilities, the lower the harder the question."""
    return [round(-float(x), 6) for x in generator.exponential(0.1 + 0.5 * hardness, size=len(tokens))]


def side(model, answer, quality, generator, hardness):
    """One model's answer."""
    tokens = spelt(answer, generator)
    return {
        "model": model,
        "text": "".join(tokens).strip(),
        "logprobs": logprobs(tokens, hardness, generator),
        "tokens": tokens,
        "answer": str(answer),
        "quality": float(quality),
        "usage": {"input_tokens": 40, "output_tokens": len(tokens)},
        "latency_s": round(float(generator.gamma(4, 0.1)), 4),
        "cost_usd": 1e-5 if model == "small" else 1e-3,
    }


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one run of a command took: seconds of CPU and MB, and what it printed."""

    seconds: float
    mb: float
    printed: str


def taken(tree: Path, folder: Path, argv: Sequence[str]) -> Taken:
    """Run a command of the version that lies in a folder, in a process of its own."""
    counted, path = folder / "counted", os.pathsep.join(map(str, (tree, tree / "shared")))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(counted), *argv],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"confroute {' '.join(argv)} of {tree}: {done.stderr}")
    seconds, kilobytes = map(float, counted.read_text().split())
    return Taken(seconds=seconds, mb=kilobytes / 1024, printed=done.stdout)


def commands(folder: Path, n: int, kind: str) -> dict[str, list[str]]:
    """The arguments of each command, on a run of so many rows, and the files that they read."""
    run, policy, log = (folder / f"{kind}-{n}{end}" for end in (".jsonl", ".policy.json", ".log"))
    if not run.exists():
        write_rows(run, rows(n) if kind == "evidence" else rows_with_signals(rows(n)))
        write_log(log, n)
    fit = ["fit", str(run), "--max-loss", "0.1", "--out", str(policy), "--json"]
    return {
        "signals": ["signals", str(run), "--json"],
        "fit": fit,
        "fit-named": [*fit, "--signal", "token_logprob.mean"],
        "apply": ["apply", str(policy), str(run), "--json"],
        "report": ["report", str(run), "--out", str(folder / "page.html")],
        "watch": ["watch", str(log), "--policy", str(policy), "--json"],
    }


def write_log(path: Path, n: int) -> None:
    """A log of so many decisions, a second apart."""
    generator = np.random.default_rng(0)
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    with path.open("w", encoding="utf-8") as file:
        for at in range(n):
            doubt = float(generator.random())
            decision = Decision(
                route="edge" if doubt < 0.5 else "cloud",
                stage="evidence",
                reason="synthetic",
                signals={"token_logprob": Measurement(signal="token_logprob", uncertainty=doubt)},
                steps=(Step(kind="draft", tier="edge", model="small", n=1, latency_s=0.1),),
            )
            at_second = (begun + timedelta(seconds=at)).isoformat()
            file.write(json.dumps({"at": at_second, **decision.to_dict()}) + "\n")


def measured(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Each command at each size, this version and the earlier one in turns."""
    trees = {"now": HERE} | ({"before": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.kinds:
            for n in options.rows:
                known = commands(folder, n, kind)
                for command in options.commands:
                    repeats = options.repeats if n <= SEVERAL_UP_TO else 1
                    runs = [
                        {tree: taken(path, folder, known[command]) for tree, path in trees.items()}
                        for _ in range(repeats)
                    ]
                    yield summary(kind, n, command, runs)


def summary(kind, n, command, runs):
    """The medians of repeated runs."""
    found = {"kind": kind, "rows": n, "command": command}
    for tree in runs[0]:
        found[f"{tree}_s"] = statistics.median(run[tree].seconds for run in runs)
        found[f"{tree}_mb"] = max(run[tree].mb for run in runs)
    if "before" in runs[0]:
        found["ratio"] = statistics.median(run["before"].seconds / run["now"].seconds for run in runs)
        found["equal"] = all(run["before"].printed == run["now"].printed for run in runs)
    return found


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--commands", nargs="+", default=["signals", "fit", "apply"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="OLD", help="the folder of an earlier version")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for one in measured(options):
        if options.json:
            print(json.dumps(one), flush=True)
            continue
        before = (
            f"  before {one['before_s']:8.1f} s {one['before_mb']:6.0f} MB  {one['ratio']:5.1f} times, "
            f"{'equal' if one['equal'] else 'DIFFERENT'}"
            if "before_s" in one
            else ""
        )
        print(
            f"{one['kind']:8}  {one['rows']:7}  {one['command']:9}  now {one['now_s']:8.1f} s {one['now_mb']:6.0f} MB{before}",
            flush=True,
        )


if __name__ == "__main__":
    main()
