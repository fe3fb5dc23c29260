"""The text and tokens of an answer that a stop string ends."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("torch")
pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from confroute.models.local import LocalModel
from confroute.types import Generation, Message

pytestmark = pytest.mark.local
ASK = [Message(role="user", text="Where did the cat sit?")]
DRAW = {"temperature": 1.2, "max_tokens": 40, "top_logprobs": 2}


@functools.cache
def free(model: LocalModel, seed: int) -> Generation:
    """The answer without stop strings."""
    return model.generate(ASK, seed=seed, **DRAW)[0]


def expected(whole: Generation, stops: list[str]) -> str:
    """The text before the first stop string to appear, token by token."""
    text = ""
    for token in whole.tokens or ():
        text += token
        hits = [text.find(stop) for stop in stops if stop in text]
        if hits:
            return text[: min(hits)]
    return text


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 5),
    starts=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    size=st.integers(1, 9),
)
def test_tokens_cover_exactly_the_text(tiny: LocalModel, seed: int, starts: list[int], size: int) -> None:
    """Whole or streamed, whatever the stop strings: one log-probability per token, and the tokens that were counted."""
    whole = free(tiny, seed)
    stops = [part for start in starts if (part := whole.text[start : start + size])]
    (cut,) = tiny.generate(ASK, seed=seed, stop=stops, **DRAW)
    kept = len(cut.tokens)
    assert cut.text == "".join(cut.tokens) == expected(whole, stops)
    assert cut.logprobs == whole.logprobs[:kept]
    assert (cut.top_logprobs or ()) == whole.top_logprobs[:kept]
    assert cut.raw == whole.raw[:kept]
    # A token that a stop string divides keeps the part before it; a token without any text left is dropped.
    assert cut.tokens[:-1] == whole.tokens[: max(0, kept - 1)]
    assert not kept or (cut.tokens[-1] and whole.tokens[kept - 1].startswith(cut.tokens[-1]))
    if cut.finish == "stop" and stops:
        assert cut.usage.output_tokens == kept
    pieces = list(tiny.stream(ASK, seed=seed, stop=stops, **DRAW))
    assert "".join(piece.text for piece in pieces) == cut.text
    assert sum((piece.tokens for piece in pieces), ()) == cut.tokens
    assert sum((piece.logprobs for piece in pieces), ()) == pytest.approx(cut.logprobs, abs=1e-4)
    assert all(len(piece.tokens) == len(piece.top_logprobs or piece.tokens) for piece in pieces)
    assert (pieces[-1].finish, pieces[-1].usage) == (cut.finish, cut.usage)
