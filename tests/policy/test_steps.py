"""Steps: what was done for a call, counted."""

import numpy as np
import pytest

from confroute.asks import DropoutPasses, Embed, Evidence, Gather, Sample, Score
from confroute.policy.steps import failed_step, step_of, steps_of
from confroute.policy.verdict import is_empty
from confroute.types import Generation, Usage

TWO = (
    Generation(text="4", model="m-1", usage=Usage(input_tokens=7, output_tokens=1)),
    Generation(text="5", usage=Usage(input_tokens=7, output_tokens=2)),
)
PASSES = DropoutPasses(logprobs=np.full((3, 2), -1.0), total=np.ones(2), expected=np.ones(2))


@pytest.mark.parametrize(
    ("evidence", "n"),
    [
        (Evidence(generations=TWO), 2),
        (Evidence(numbers=np.ones((4, 8), np.float32)), 4),
        (Evidence(passes=PASSES), 3),
        (Evidence(), 0),
    ],
)
def test_a_step_counts_what_came(evidence, n):
    """Answers, texts that were embedded, or passes; nothing is 0."""
    assert step_of("sample", evidence, tier="edge", model="m").n == n


def test_tokens_of_several_answers_are_added():
    """One usage as it is, several as their sum, none where none was reported."""
    told = step_of("sample", Evidence(generations=TWO, latency_s=2.0, attempts=3), tier="edge", model="m")
    assert (told.usage, told.latency_s, told.attempts) == (Usage(input_tokens=14, output_tokens=3), 2.0, 3)
    assert step_of("draft", Evidence(generations=TWO[:1]), tier="edge", model="m").usage is TWO[0].usage
    silent = Evidence(generations=(Generation(text="4"),))
    assert step_of("draft", silent, tier="edge", model="m").usage is None


def test_a_failed_step_brought_nothing():
    """The kind of its error, no answer, and the model where it is known."""
    told = failed_step("draft", ValueError("7 secrets"), tier="edge", model="m")
    assert (told.n, told.error, told.tier, told.model, told.usage) == (0, "ValueError", "edge", "m", None)


def test_what_was_gathered_is_one_group():
    """Each part has its step, with the number of steps before as the group's; an ask alone belongs to none."""
    asks = (Sample(tier="edge", n=2), Embed(texts=("4",), model="embedder"), Score(tier="edge", answer="4"))
    brought = Evidence(parts=(Evidence(generations=TWO), ValueError("no"), Evidence(passes=PASSES)))
    found = steps_of(Gather(asks=asks), brought, "m", before=4)
    assert [(s.kind, s.tier, s.model, s.n, s.error, s.group) for s in found] == [
        ("sample", "edge", "m-1", 2, None, 4),
        ("embed", None, None, 0, "ValueError", 4),
        ("score", "edge", "m", 3, None, 4),
    ]
    failed = steps_of(Gather(asks=asks), KeyError("all"), "m", before=4)
    assert [(s.kind, s.error, s.group) for s in failed] == [
        (kind, "KeyError", 4) for kind in ("sample", "embed", "score")
    ]
    (alone,) = steps_of(asks[1], Evidence(numbers=np.ones((1, 8), np.float32)), "m", before=4)
    assert (alone.model, alone.n, alone.group) == ("embedder", 1, None)


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        (Generation(text=" \n"), True),
        (Generation(text="4"), False),
        (Generation(text="", answer="tool"), False),
        (Generation(text="", flaw="unknown tool"), False),
    ],
)
def test_an_answer_without_text_may_be_one(answer, missing):
    """A tool call has an answer, and one that does not validate a flaw."""
    assert is_empty(answer, Evidence()) is missing
