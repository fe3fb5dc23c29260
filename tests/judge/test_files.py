"""Answers to judge from files: matched by ids, each of which stands once."""

import pytest

from confroute.errors import RequestError
from confroute.judge.files import is_private, read_pairs, singles_to_grade, with_grades
from confroute.judge.verdicts import Grading, Mark
from confroute.policy.rules import KeepPrivate
from confroute.recording import RecordError, read_rows, row_from_dict

ONCE = '{"id": "1", "prompt": "2+2?", "response": "4"}\n{"id": 2, "prompt": "3+3?", "response": "6"}\n'
TWICE = ONCE + '{"id": "1", "prompt": "2+2?", "response": "5"}\n'


@pytest.mark.parametrize("double", ["a", "b"])
def test_pairs_of_duplicate_ids_are_refused(tmp_path, double):
    """In either file: which answer belongs to which is not known."""
    paths = {name: tmp_path / f"{name}.jsonl" for name in "ab"}
    for path in paths.values():
        path.write_text(ONCE)
    assert [(pair.id, pair.a, pair.b) for pair in read_pairs(paths["a"], paths["b"])] == [
        ("1", "4", "4"),
        ("2", "6", "6"),
    ]
    paths[double].write_text(TWICE)
    with pytest.raises(RecordError, match=f"{double}.jsonl, line 3: the id '1' is in line 1"):
        read_pairs(paths["a"], paths["b"])


def test_grades_of_duplicate_ids_are_refused(tmp_path):
    """One grade would overwrite the other."""
    path = tmp_path / "run.jsonl"
    path.write_text('{"id": "1", "edge": {"text": "4"}}\n{"id": 1, "edge": {"text": "5"}}\n')
    with pytest.raises(RecordError, match="line 2: the id '1'"):
        list(singles_to_grade(read_rows(path), ["edge"], again=False, private=KeepPrivate()))


def test_the_answers_of_every_model_are_graded():
    """Of those that stand between edge and cloud too; one side alone where it is asked for."""
    row = row_from_dict(
        {
            "id": "1",
            "prompt": "2+2?",
            "edge": {"text": "4"},
            "tiers": {"mid": {"text": "5"}},
            "cloud": {"text": "6"},
        }
    )
    asked = [one.id for one in singles_to_grade([row], None, again=False, private=KeepPrivate())]
    assert asked == ["1|edge", "1|mid", "1|cloud"]
    assert [one.answer for one in singles_to_grade([row], ["mid"], again=False, private=KeepPrivate())] == [
        "5"
    ]
    mark = Mark(judge="j", score=10.0)
    graded = with_grades(row, {"1|mid": Grading(id="1|mid", marks=(mark,), words=1)})
    assert (graded.edge.quality, graded.tiers["mid"].side.quality, graded.cloud.quality) == (None, 1.0, None)


@pytest.mark.parametrize("said", ["true", '"true"', "1", '"Yes"'])
def test_a_row_that_says_it_is_private_is(tmp_path, said):
    """However it says so; files come from other programs."""
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"id": "1", "prompt": "q", "private": {said}, "edge": {{"text": "4"}}}}\n')
    (row,) = read_rows(path)
    assert is_private(row, KeepPrivate())
    assert is_private(row, KeepPrivate(tags=("confidential",)))


@pytest.mark.parametrize("said", ["false", "null", '"no"', "0"])
def test_a_row_that_says_it_is_not_private_is_not(tmp_path, said):
    """And a tag alone, in any case, is enough."""
    path = tmp_path / "run.jsonl"
    for tags, private in (('["a"]', False), ('["Private"]', True), ('"private"', True)):
        path.write_text(
            f'{{"id": "1", "prompt": "q", "private": {said}, "tags": {tags}, "edge": {{"text": "4"}}}}\n'
        )
        (row,) = read_rows(path)
        assert is_private(row, KeepPrivate()) is private


def test_a_row_that_says_neither_is_refused(tmp_path):
    """It might be meant to be private."""
    path = tmp_path / "run.jsonl"
    path.write_text('{"id": "1", "prompt": "q", "private": "ask me", "edge": {"text": "4"}}\n')
    (row,) = read_rows(path)
    with pytest.raises(RequestError, match="expected True or False"):
        is_private(row, KeepPrivate())
