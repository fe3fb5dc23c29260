"""Every script of examples/ runs offline in a process of its own, on the local models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# What a run has to print for the script to have shown what it promises.
PROMISES = {
    "folder_chat.py": ("> What does a bicycle cost?", "requests reached the cloud"),
    "langchain_agent.py": (
        "calls fare(",
        "calls multiply(",
        "verify: ",
        "prefix: ",
        "requests reached the cloud",
    ),
    "langchain_chain.py": ("before:", "after:", "edge", "cloud"),
    "judge_and_label.py": ("compared in both orders:", "graded:", "label of 0:", "by correctness"),
    "own_signal.py": ("It is 41. | hedging 2", "Maybe 42, I think. | 27 characters"),
    "production.py": (
        "keeps the state",
        "edge (rule): ",
        "degraded): ",
        "calls reached the cloud",
        "decisions.jsonl.html",
    ),
    "query_engine.py": ("edge", "token logprob"),
    "record_fit_deploy.py": ("36 rows recorded", "promised: regret at most", "deployed: ", "token logprob"),
    "subagents.py": ("tool: At 19:10.", "  edge: token logprob 0.02", "  cloud: token logprob 1.4"),
}
WITHOUT_MODELS = {"own_signal.py", "subagents.py"}
SMALL = ["--cloud-model", "smollm2-135m"]
ARGUMENTS = {
    "folder_chat.py": ["What does a bicycle cost?", *SMALL],
    "judge_and_label.py": [*SMALL, "--judge-model", "smollm2-135m"],
    "record_fit_deploy.py": SMALL,
}


def test_every_script_has_a_promise():
    """A new example is run here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISES)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in WITHOUT_MODELS else pytest.mark.slow)
        for name in sorted(PROMISES)
    ],
)
def test_a_script_does_what_it_promises(name, tmp_path):
    """From an empty folder, warnings shown."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *ARGUMENTS.get(name, [])],
        cwd=tmp_path,
        env={**os.environ, "OPENAI_API_KEY": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for promised in PROMISES[name]:
        assert promised in done.stdout, done.stdout
