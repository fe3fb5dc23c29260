"""Requests: one token estimate, the answer's room set aside, and the caller's wishes before the host's findings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.hosts.model import ModelFacts
from confroute.hosts.options import CallOptions
from confroute.hosts.requests import advertised_window, estimated_tokens, prompt_window, request_of
from confroute.types import Context, Message

MESSAGES = (Message(role="user", text="What is the capital of France?"),)


def facts(window=None, output=None, **more):
    """One model's."""
    return ModelFacts(model="m", context_window=window, max_output=output, **more)


@given(st.lists(st.text(), max_size=4), st.text())
def test_estimates_grow_with_bytes(texts, extra):
    """By length in UTF-8, and a little for each message; lone surrogates are counted too."""
    messages = [Message(role="user", text=text) for text in texts]
    size = sum(len(text.encode("utf-8", "replace")) for text in [*texts, extra])
    assert estimated_tokens(messages, extra=extra) == round(size / 3.5) + 6 * len(texts)


@pytest.mark.parametrize(
    ("window", "output", "max_tokens", "room"),
    [
        (None, 5, 5, None),
        (100, None, None, 100),
        (100, 30, None, 70),
        (100, 30, 10, 90),
        (100, 30, 0, 70),
        (100, 30, True, 70),
        (100, 30, "10", 70),
        (100, 30, 100, 100),
        (100, 100, None, 100),
    ],
)
def test_room_of_the_answer(window, output, max_tokens, room):
    """Set aside from the window where it is known and leaves something."""
    assert prompt_window(facts(window, output), max_tokens) == room


@pytest.mark.parametrize(("edge", "cloud"), [(4, 8), (8, 4), (None, 8), (8, None), (None, None)])
def test_the_last_tiers_window_is_advertised(edge, cloud):
    """Whatever the first one's is."""
    assert advertised_window({"edge": facts(edge, 2), "cloud": facts(cloud, 2)}) == cloud


def test_a_request_with_everything():
    """Counts are exact where the host can count, and the caller's options come first."""
    request = request_of(
        MESSAGES,
        {"edge": facts(100, 30, can_sample=False), "cloud": facts()},
        CallOptions(route="auto", threshold=0.1, tags=frozenset({"a"}), question="q", purpose="refine"),
        extra="x" * 35,
        max_tokens=20,
        counts={"edge": 7},
        lacks={"edge": "tools"},
        tags=frozenset({"b"}),
        question="other",
        context=Context(passages=("p",)),
        purpose="other",
        whole=True,
    )
    edge, cloud = request.tiers["edge"], request.tiers["cloud"]
    assert (edge.context_window, edge.input_tokens, edge.lacks, edge.can_sample) == (80, 7, "tools", False)
    assert (cloud.context_window, cloud.input_tokens, cloud.lacks) == (None, 25, None)
    assert (request.route, request.threshold, request.tags) == (None, 0.1, frozenset("ab"))
    assert (request.question, request.purpose, request.whole) == ("q", "refine", True)
    assert request.context == Context(passages=("p",))


def test_a_request_of_little():
    """A prompt's tokens are estimated without a window too: what a draft that is cut off cost is told by them."""
    request = request_of(MESSAGES, {"edge": facts(), "cloud": facts()}, purpose="summary")
    assert request.tiers["edge"].input_tokens == 15
    assert request.purpose == "summary"
