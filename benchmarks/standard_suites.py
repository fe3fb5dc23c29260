"""How LangChain's own standard suites end on ChatConfRoute, in its four situations, and on cascadeflow's chat model.

    python benchmarks/standard_suites.py [--json] [--cascadeflow-python PATH]

Runs `tests/langchain/test_standard.py`, and the same suites on cascadeflow where it is installed. It need not be in this
environment: `python -m venv V && V/bin/pip install cascadeflow==1.2.0 '.[langchain]' langchain-tests pytest
pytest-asyncio pytest-socket pytest-timeout hypothesis`, then `--cascadeflow-python V/bin/python`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
OURS = "tests/langchain/test_standard.py"
THEIRS = "benchmarks/peers/cascadeflow_suite.py"
OUTCOMES = ("passed", "failed", "xfailed", "skipped")


def outcome(case: ElementTree.Element) -> str:
    """How one test ended, from pytest's report of it."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"


def run(python: str, path: str, *options: str) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts of each class of a file, and the names of what failed.

    Raises
    ------
    RuntimeError
        pytest could not run the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            path,
            f"--junitxml={report}",
            *options,
        ]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            raise RuntimeError(
                f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        cases = list(ElementTree.parse(report).iter("testcase"))
    counts: dict[str, Counter[str]] = {}
    for case in cases:
        counts.setdefault(str(case.get("classname")).rpartition(".")[2], Counter())[outcome(case)] += 1
    return counts, [str(case.get("name")) for case in cases if outcome(case) == "failed"]


def has_cascadeflow(python: str) -> bool:
    """Whether that Python can import it."""
    done = subprocess.run([python, "-c", "import cascadeflow"], capture_output=True, check=False)
    return done.returncode == 0


def table(found: dict[str, dict[str, Counter[str]]]) -> str:
    """One line a suite and configuration."""
    lines = [f"{'model':16} {'suite':20}" + "".join(f"{name:>9}" for name in OUTCOMES)]
    for model, suites in found.items():
        for suite, counts in suites.items():
            row = "".join(f"{counts[name]:9}" for name in OUTCOMES)
            lines.append(f"{model:16} {suite.removeprefix('Test'):20}{row}")
        total = sum(suites.values(), Counter())
        lines.append(f"{model:16} {'together':20}" + "".join(f"{total[name]:9}" for name in OUTCOMES))
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cascadeflow-python", default=sys.executable, metavar="PATH")
    options = parser.parse_args()
    counts, failed = run(sys.executable, OURS)
    found, failures = {"ChatConfRoute": counts}, {"ChatConfRoute": failed}
    if has_cascadeflow(options.cascadeflow_python):
        # Its warnings, which are errors in our own suite, are not what is counted.
        theirs = run(options.cascadeflow_python, THEIRS, "-W", "ignore")
        found["cascadeflow"], failures["cascadeflow"] = theirs
    if options.json:
        print(json.dumps({"counts": found, "failed": failures}))
        return
    print(f"langchain-tests {version('langchain-tests')}, langchain-core {version('langchain-core')}")
    print(table(found))
    for model, names in failures.items():
        if names:
            print(f"\nfailed on {model}: {', '.join(sorted(set(names)))}")
    if "cascadeflow" not in found:
        print("cascadeflow is not installed here: see the head of this file.", file=sys.stderr)


if __name__ == "__main__":
    main()
