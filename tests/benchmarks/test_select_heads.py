"""The rule by which the replay's head is chosen: what is held out, how a candidate is valued, and ties."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from confroute.bench.candidates import CANDIDATES, MEMBERS, HeadChoice
from confroute.bench.material import Texts
from confroute.bench.training import TrainingSet
from confroute.heads import prompt_features
from confroute.stats.metrics import apgr

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("select_heads", FOLDER / "select_heads.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "_recorded", raising=False)
    return module


def made(n=90):
    """Questions of two weak and two strong models; long ones are right only by the strong."""
    generator = np.random.default_rng(0)
    hard = generator.random(n) < 0.5
    prompts = tuple("word " * (40 if one else 5) + f"number {at}" for at, one in enumerate(hard))
    weak = np.array([~hard, ~hard | (np.arange(n) % 9 == 0)]).astype(float)
    return TrainingSet(
        source="made",
        prompts=prompts,
        subjects=("philosophy", "college_physics", "anatomy") * (n // 3),
        weak=weak,
        strong=np.ones((2, n)),
        weak_models=("a", "b"),
        strong_models=("c", "d"),
    )


def texts_of(run):
    """Vectors without meaning, and the features."""
    noise = np.random.default_rng(1).normal(size=(len(run.prompts), 3))
    vectors = np.hstack([noise, prompt_features(run.prompts)]).astype(np.float32)
    return Texts(
        prompts=run.prompts, vectors=vectors, others=dict.fromkeys(("all-mpnet-base-v2", "tuned"), vectors)
    )


@pytest.mark.parametrize("bench", ["mmlu", "gsm8k", "mt-bench"])
def test_everything_is_held_out_once(script, bench):
    """In thirds, or in halves of whole subjects."""
    run = made()
    parts = script.held_out(bench, run)
    assert len(parts) == (2 if bench == "mt-bench" else 3)
    assert np.array_equal(np.sum(parts, axis=0), np.ones(90))
    if bench == "mt-bench":
        assert [{run.subjects[at] for at in np.flatnonzero(part)} for part in parts] == [
            {"college_physics", "anatomy"},
            {"philosophy"},
        ]


def test_the_largest_value_is_chosen_and_a_tie_goes_to_the_first(script):
    """Gaps weigh; beyond 1e-9 nothing is a tie."""

    def table(*values):
        return [(np.array([row]), np.array([[1.0, 3.0]])) for row in values]

    assert script.chosen(table([0.9, 0.5], [0.5, 0.7]), [0, 1]) == 1
    assert script.chosen(table([0.9, 0.5], [0.5, 0.7]), [0]) == 0
    assert script.chosen(table([0.6, 0.6 - 5e-10], [0.6, 0.6]), [0, 1]) == 0
    assert script.chosen(table([0.6, 0.6 - 5e-9], [0.6, 0.6]), [0, 1]) == 1


def test_a_value_is_the_apgr_of_what_was_held_out(script):
    """Each part ranked by itself, for models whose labels were not learnt from; length tells all here."""
    run = made()
    held = script.held_out("gsm8k", run)
    scores = script.member_scores(run, held, [(texts_of(run), [])] * 3)
    values, gaps = script.areas(HeadChoice(members=("length",)), scores, run, held)
    assert values.shape == gaps.shape == (2, 3)
    lengths = np.array([float(len(prompt)) for prompt in run.prompts])
    for at in range(2):
        for number, part in enumerate(held):
            assert values[at, number] == apgr(lengths[part], run.weak[at][part], run.strong[at][part])
            assert gaps[at, number] == (run.strong[at] - run.weak[at])[part].sum()
    features, _ = script.areas(HeadChoice(members=("features",)), scores, run, held)
    assert features.min() > 0.7
    drawn, _ = script.areas(HeadChoice(members=("length",)), scores, run, held, np.random.default_rng(0))
    assert not np.array_equal(drawn, values)


def test_every_candidate_is_made_of_members_and_ties_prefer_few():
    """The list goes from one member to four."""
    assert {name for choice in CANDIDATES for name in choice.members} == {*MEMBERS}
    sizes = [len(choice.members) for choice in CANDIDATES]
    assert sizes == sorted(sizes)
