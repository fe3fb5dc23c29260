"""What an answer holds when a stop string ends it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from confroute import Cascade, TokenLogprob
from confroute.models.local import LocalModel
from confroute.testing import ScriptedModel
from confroute.types import Generation, Message

ASK = [Message(role="user", text="Where did the cat sit?")]
DRAW = {"temperature": 1.2, "max_tokens": 40, "top_logprobs": 2}


@functools.cache
def free(model: LocalModel, seed: int) -> Generation:
    """The answer that nothing stops."""
    return model.generate(ASK, seed=seed, **DRAW)[0]


def expected(whole: Generation, stops: list[str]) -> str:
    """The text before the first stop string that comes about as tokens come."""
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
    """Whole or streamed, whatever the stop strings: as many log-probabilities as tokens, and tokens that were counted."""
    whole = free(tiny, seed)
    stops = [found for start in starts if (found := whole.text[start : start + size])]
    (cut,) = tiny.generate(ASK, seed=seed, stop=stops, **DRAW)
    kept = len(cut.tokens)
    assert cut.text == "".join(cut.tokens) == expected(whole, stops)
    assert cut.logprobs == whole.logprobs[:kept]
    assert (cut.top_logprobs or ()) == whole.top_logprobs[:kept]
    assert cut.raw == whole.raw[:kept]
    # Of a token that a stop string cuts through, the part before it counts; no token is left that lost all of its text.
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


@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
def test_a_long_stop_string_leaves_evidence(tiny_folder: Path, tiny: LocalModel, host: str) -> None:
    """The tokens that a stop string of many tokens took away are not missed as unscored ones."""
    stop = free(tiny, 3).text[6:14]
    policy = Cascade.of(TokenLogprob(), 1e9)
    given = {"model": str(tiny_folder), "temperature": 1.2, "seed": 3, "max_tokens": 40}
    if host == "langchain":
        pytest.importorskip("langchain_core")
        from langchain_confroute import ChatConfRoute, ChatLocal
        from langchain_confroute.testing import ScriptedChat

        chat = ChatConfRoute(edge=ChatLocal(**given), cloud=ScriptedChat.of("no"), policy=policy)
        answer = chat.invoke(ASK[0].text, stop=[stop])
        text, decision = answer.text, answer.response_metadata["confroute"]
    else:
        pytest.importorskip("llama_index.core")
        from llamaindex_confroute import ConfRouteLLM, LocalLLM
        from llamaindex_confroute.testing import ScriptedLLM

        llm = ConfRouteLLM(
            edge=LocalLLM(**given), cloud=ScriptedLLM(model=ScriptedModel(["no"])), policy=policy
        )
        response = llm.complete(ASK[0].text, stop=[stop])
        text, decision = response.text, response.additional_kwargs["confroute"]
    assert text == free(tiny, 3).text[:6]
    assert (decision["route"], decision["signal"]) == ("edge", "token_logprob")
