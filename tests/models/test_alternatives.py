"""Alternatives to a local model's tokens: the likeliest ones, with the model's own log-probabilities."""

import math

import pytest

torch = pytest.importorskip("torch")

from confroute.errors import RequestError
from confroute.models.local import LocalModel
from confroute.types import Message

pytestmark = pytest.mark.local
ASK = [Message(role="user", text="the cat")]


def test_the_likeliest_tokens_come_with_each_token(tiny_folder):
    """Likeliest first, probabilities of one distribution, the greedy token in front; the same in a stream."""
    model = LocalModel.load(tiny_folder)
    (answer,) = model.generate(ASK, max_tokens=6, top_logprobs=4)
    assert len(answer.top_logprobs) == len(answer.logprobs)
    for value, top in zip(answer.logprobs, answer.top_logprobs, strict=True):
        values = [nats for _, nats in top]
        assert values == sorted(values, reverse=True)
        assert len(values) == 4
        assert values[0] == pytest.approx(value, abs=1e-6)
        assert sum(map(math.exp, values)) <= 1.0 + 1e-6
    streamed = [
        top for piece in model.stream(ASK, max_tokens=6, top_logprobs=4) for top in piece.top_logprobs or ()
    ]
    assert tuple(streamed) == answer.top_logprobs


def test_none_are_returned_unless_requested(tiny_folder):
    """No alternatives by default; a negative number is refused."""
    model = LocalModel.load(tiny_folder)
    assert model.generate(ASK, max_tokens=2)[0].top_logprobs is None
    with pytest.raises(RequestError, match="top_logprobs"):
        model.generate(ASK, top_logprobs=-1)
