"""Log-probabilities, usage, finish reasons and names, from every shape in which providers send them."""

import enum
import math
from types import SimpleNamespace

import pytest

from confroute.models.provider_answers import (
    ChunkScores,
    ScoredTokens,
    chunk_tokens,
    is_role,
    logprobs_content,
    read_answer_logprobs,
    read_finish,
    read_generations,
    read_logprobs,
    read_model,
    read_usage,
    role_of,
)
from confroute.types import Usage


def as_object(value):
    """The same answer as a client's objects instead of dictionaries."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(inner) for name, inner in value.items()})
    return [as_object(inner) for inner in value] if isinstance(value, list) else value


ENTRIES = [{"token": "4", "logprob": -0.5}, {"token": " 2", "logprob": -1}]
TOPS = [
    {**ENTRIES[0], "top_logprobs": [{"token": "4", "logprob": -0.5}, {"token": "5", "logprob": -0.9}]},
    {**ENTRIES[1], "top_logprobs": [{"token": " 2", "logprob": -1.0}]},
]
COLUMNS = {"tokens": ["4", " 2"], "token_logprobs": [-0.5, -1]}
PLACES = ((("4", -0.5), ("5", -0.9)), ((" 2", -1.0),))
ANSWERS = {
    "chat": {"choices": [{"logprobs": {"content": ENTRIES, "refusal": None}}]},
    "completion": {"choices": [{"logprobs": COLUMNS}]},
    "ollama": {"logprobs": ENTRIES},
    "beside the choices": {"choices": [{"logprobs": None}], "logprobs": {"content": ENTRIES}},
    "responses": {"output": [{"type": "reasoning"}, {"content": [{"text": "4 2", "logprobs": ENTRIES}]}]},
}


@pytest.mark.parametrize("shape", [dict, as_object], ids=["dictionaries", "objects"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_every_shape_is_read(answer, shape):
    """Dictionaries and objects alike."""
    scored = read_answer_logprobs(shape(answer))
    assert (scored.logprobs, scored.tokens) == ((-0.5, -1.0), ("4", " 2"))
    assert all(type(value) is float for value in scored.logprobs)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        "text",
        {"choices": []},
        {"choices": [{"logprobs": {"content": []}}]},
        {"choices": [{"logprobs": None}]},
        {"logprobs": "yes"},
        {"logprobs": True},
        {"logprobs": {"content": "4"}},
        {"logprobs": [{"token": "a"}]},
        {"logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": None}]},
        {"logprobs": [{"token": "a", "logprob": True}]},
        {"logprobs": [{"token": "a", "logprob": "-0.1"}]},
        {"logprobs": {"token_logprobs": []}},
        {"logprobs": {"token_logprobs": [None, -1.0]}},
    ],
)
def test_what_is_missing_is_not_invented(raw):
    """No numbers, or numbers for only a part of the tokens, are no evidence: never an empty tuple, never NaN."""
    assert read_answer_logprobs(raw) is None
    assert read_answer_logprobs(as_object(raw)) is None


def test_numbers_come_through_as_they_were_sent():
    """NaN and positive values are for the core to judge; what is not named has no tokens."""
    scored = read_logprobs([{"logprob": math.nan}, {"logprob": 0.5}])
    assert math.isnan(scored.logprobs[0])
    assert (scored.logprobs[1], scored.tokens, scored.alternatives) == (0.5, None, None)


def test_alternatives():
    """Of chat, of completions, and none where one place has none or its entries are not whole."""
    assert read_logprobs({"content": TOPS}).alternatives == PLACES
    assert read_logprobs(as_object(TOPS)).alternatives == PLACES
    tops = [{"4": -0.5, "5": -0.9}, {" 2": -1.0}]
    assert read_logprobs({**COLUMNS, "top_logprobs": tops}).alternatives == PLACES
    for wrong in ([], None, [{"token": "4"}], [{"token": 4, "logprob": -0.5}]):
        for entries in ([TOPS[0], {**TOPS[1], "top_logprobs": wrong}], [{**TOPS[0], "top_logprobs": wrong}]):
            scored = read_logprobs(entries)
            assert scored is not None
            assert scored.alternatives is None


def test_written_as_read():
    """What `logprobs_content` writes comes back the same."""
    scored = ScoredTokens(logprobs=(-0.5, -1.0), tokens=("4", " 2"), alternatives=PLACES)
    assert read_logprobs(logprobs_content(scored.tokens, scored.logprobs, scored.alternatives)) == scored
    assert logprobs_content(["é\ud800"], [-0.5])[0]["bytes"] == [195, 169, 63]


def test_chunks_add_up_to_the_whole():
    """Each chunk's own, and all of them; a chunk without text changes nothing."""
    scores = ChunkScores()
    first, second = ({"logprobs": [entry]} for entry in TOPS)
    assert scores.add(read_answer_logprobs(first), has_text=True).logprobs == (-0.5,)
    assert scores.add(None, has_text=False) == ()
    assert scores.add(read_answer_logprobs(second), has_text=True).logprobs == (-1.0,)
    assert scores.whole == read_logprobs(TOPS)


def test_a_chunk_without_text_is_not_watched():
    """Reasoning comes scored in chunks of its own: it is kept for the whole, which the text is sought in, and not watched."""
    scores, scored = ChunkScores(), ScoredTokens(logprobs=(-0.001,), tokens=("Hm",))
    assert scores.add(scored, has_text=False) == chunk_tokens(scored, has_text=False) == ()
    assert scores.whole == scored


def test_a_chunk_without_numbers_takes_the_evidence_away():
    """Nothing is known of the whole where a part has no log-probabilities; names may be missing apart."""
    scores = ChunkScores()
    scores.add(ScoredTokens(logprobs=(-0.5,)), has_text=True)
    scores.add(ScoredTokens(logprobs=(-1.0,), tokens=("a",)), has_text=True)
    assert scores.whole == ScoredTokens(logprobs=(-0.5, -1.0))
    assert scores.add(None, has_text=True) is None
    assert scores.whole is None
    assert ChunkScores().whole is None


def test_usage():
    """OpenAI's, Anthropic's and Ollama's names; the first holder with both counts speaks."""
    expected = Usage(input_tokens=3, output_tokens=0)
    for names in (
        ("prompt_tokens", "completion_tokens"),
        ("input_tokens", "output_tokens"),
        ("prompt_eval_count", "eval_count"),
    ):
        counts = dict(zip(names, (3, 0), strict=True))
        assert read_usage(None, {}, counts) == read_usage(as_object(counts)) == expected
    assert read_usage({"prompt_tokens": 3}) is None
    assert read_usage({"prompt_tokens": 3, "completion_tokens": None}) is None


class FinishReason(str, enum.Enum):  # noqa: UP042  as Google's client declares it: str() of it is the name with its class
    """As in Google's client."""

    MAX_TOKENS = "MAX_TOKENS"


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ({"choices": [{"finish_reason": "length"}]}, "length"),
        ({"finish_reason": "STOP"}, "stop"),
        ({"finish_reason": FinishReason.MAX_TOKENS}, "length"),
        ({"stop_reason": "tool_use"}, "tool_calls"),
        ({"done_reason": "stop"}, "stop"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"finish_reason": "SAFETY"}, "content_filter"),
        ({"stop_reason": "refusal"}, "content_filter"),
        ({"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"choices": [{"finish_reason": "error"}]}, "error"),
        ({"stop_reason": "pause_turn"}, "length"),
        ({"candidates": [{"finishReason": "MAX_TOKENS"}]}, "length"),
        # Of OpenAI's Responses API, where a reason says more than the state.
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "failed", "incomplete_details": None}, "error"),
        ({"status": "in_progress"}, "unknown"),
        ({"finish_reason": "insufficient_system_resource"}, "error"),
        ({"finish_reason": "ERROR_LIMIT"}, "length"),
        ({"finish_reason": "time_limit"}, "length"),
        ({"finish_reason": "USER_CANCEL"}, "cancelled"),
        ({"finish_reason": "LANGUAGE"}, "content_filter"),
        ({"finish_reason": "UNEXPECTED_TOOL_CALL"}, "error"),
        ({"finish_reason": "timeout"}, "error"),
        ({"finish_reason": "made up"}, "unknown"),
        ({"choices": [{"finish_reason": None}]}, "unknown"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
def test_finish(holder, expected):
    """One table for all providers."""
    assert read_finish(holder) == read_finish(None, as_object(holder)) == expected


def test_names():
    """Models and roles."""
    assert read_model({"model_name": "a", "model": "b"}) == "a"
    assert read_model(SimpleNamespace(model="b")) == "b"
    assert read_model({"model": ""}) is None
    assert [role_of(name) for name in ("human", "AIMessageChunk", "chatbot", "developer", "function")] == [
        "user",
        "assistant",
        "assistant",
        "system",
        "tool",
    ]
    assert (role_of("narrator"), role_of(None), is_role("narrator"), is_role("ai")) == (
        "user",
        "user",
        False,
        True,
    )


@pytest.mark.parametrize("shape", [dict, as_object], ids=["dictionary", "objects"])
def test_answers_of_one_call(shape):
    """Each choice is an answer; the prompt is billed once."""
    raw = {
        "model": "small",
        "usage": {"prompt_tokens": 7, "completion_tokens": 4},
        "choices": [
            {"message": {"content": "4 2"}, "finish_reason": "stop", "logprobs": {"content": TOPS}},
            {"text": "42", "finish_reason": "length", "logprobs": None},
        ],
    }
    first, second = read_generations(shape(raw), model="other")
    assert (first.text, first.finish, first.model, first.logprobs) == ("4 2", "stop", "small", (-0.5, -1.0))
    assert (first.top_logprobs, first.usage) == (PLACES, Usage(input_tokens=7, output_tokens=4))
    assert (second.text, second.finish, second.usage, second.logprobs) == ("42", "length", None, None)
    assert read_generations({}, model="other") == []


@pytest.mark.parametrize("shape", [dict, as_object], ids=["dictionary", "objects"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_numbers_beside_the_choices_are_of_a_lone_answer(answer, shape):
    """Wherever an answer's numbers stand, they are read with it; of several answers nobody could tell whose they are."""
    choices = [{"message": {"content": "4 2"}, **choice} for choice in answer.get("choices", [{}])]
    (lone,) = read_generations(shape({**answer, "choices": choices}))
    assert (lone.text, lone.logprobs) == ("4 2", (-0.5, -1.0))
    beside = {name: value for name, value in answer.items() if name != "choices"}
    several = read_generations(shape({**beside, "choices": [{"text": "4 2"}, {"text": "7"}]}))
    assert [one.logprobs for one in several] == [None, None]
