"""Rows that are recorded at the same time: none that is finished is lost."""

import threading
from dataclasses import replace

import pytest

from confroute.errors import ModelError
from confroute.recording import Row, Side, read_rows
from confroute.recording.runner import record_into

PROMPTS = [Row(id=name, prompt=f"What is {name}?", edge=Side()) for name in "abcdef"]


class FailsOnce:
    """Answers, but for one prompt, which fails while the others are in progress."""

    def __init__(self, bad: str) -> None:
        self.bad, self.asked = bad, []
        self.begun, self.failed = threading.Barrier(3), threading.Event()

    def row(self, given: Row) -> Row:
        self.asked.append(given.id)
        self.begun.wait(10)
        if given.id == self.bad:
            self.failed.set()
            raise ModelError("there is no such model")
        assert self.failed.wait(10)
        return replace(given, edge=Side(text="5"))


class Answers:
    """Answers at once."""

    def __init__(self) -> None:
        self.asked = []

    def row(self, given: Row) -> Row:
        self.asked.append(given.id)
        return replace(given, edge=Side(text="5"))


@pytest.mark.parametrize("bad", ["a", "b", "c"])
def test_rows_in_progress_are_written_before_the_error_of_another_is_raised(tmp_path, bad):
    """Three at a time: two rows are paid for and whole when the third one's error ends the run; a further run asks for the rest."""
    out, fails, answers = tmp_path / "run.jsonl", FailsOnce(bad), Answers()
    with pytest.raises(ModelError, match="no such model"):
        record_into(out, PROMPTS, lambda: fails, concurrency=3)
    written = {row.id for row in read_rows(out)}
    assert written == {"a", "b", "c"} - {bad}
    assert set(fails.asked) == {"a", "b", "c"}, "no row is begun after an error"
    assert record_into(out, PROMPTS, lambda: answers, concurrency=3).recorded == 4
    assert set(answers.asked) == {bad, "d", "e", "f"}
    assert len([*read_rows(out)]) == len(PROMPTS)
