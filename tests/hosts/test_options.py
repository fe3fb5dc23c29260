"""Options of one call: the same names, types and refusals whoever passes them on."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.errors import RequestError
from confroute.hosts.options import KEYS, NO_OPTIONS, CallOptions, read_documents, read_options, split_options
from confroute.types import Context

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=6,
)


class Node:
    """A document of some host's."""

    text, score = "node", 0.5


def read_node(one):
    """What that host gives."""
    return (one.text, one.score) if isinstance(one, Node) else None


def read(**options):
    """Options of one call."""
    return read_options(options, place="the call")


def test_everything_a_caller_may_set():
    """Read, converted to plain Python, and complete."""
    assert read(
        route="edge",
        threshold=np.float32(0.5),
        tags=["a", "b"],
        purpose="refine",
        context={"question": "q", "documents": ["d"]},
    ) == CallOptions(
        route="edge",
        threshold=0.5,
        tags=frozenset("ab"),
        purpose="refine",
        question="q",
        context=Context(passages=("d",)),
    )
    assert type(read(threshold=np.float32(0.5)).threshold) is float
    assert read(threshold={"token_logprob": 1, "entropy": Fraction(1, 2)}).threshold == {
        "token_logprob": 1.0,
        "entropy": 0.5,
    }


def test_auto_leaves_the_decision_to_the_policy():
    """Also where something around the call names a tier."""
    assert read(route="auto").forced is None
    assert read(route="cloud").forced == "cloud"
    assert read(route="auto").over(read(route="cloud")).forced is None
    assert read(threshold=1).over(read(route="cloud", threshold=2)) == CallOptions(
        route="cloud", threshold=1.0
    )


def test_nothing_set_is_one_object():
    """So that a call without options costs nothing."""
    assert read_options(None, place="p") is NO_OPTIONS
    assert read_options({"thread_id": 1, 3: 4}, place="p", prefix="confroute_") is NO_OPTIONS
    assert split_options({"stop": ["."]}) == (NO_OPTIONS, {"stop": ["."]})
    assert read(route="edge").over(NO_OPTIONS) == read(route="edge")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"rout": "edge"}, "rout"),
        ({"route": "moon"}, "edge, cloud, auto"),
        ({"route": ["edge"]}, "route"),
        ({"route": True}, "route"),
        ({"threshold": True}, "threshold"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": {"token_logprob": True}}, "threshold"),
        ({"threshold": {1: 1.0}}, "threshold"),
        ({"tags": "hard"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"tags": {"hard": 1}}, "tags"),
        ({"tags": 3}, "tags"),
        ({"purpose": 3}, "purpose"),
        ({"context": "text"}, "context"),
        ({"context": {"passages": []}}, "passages"),
        ({"context": {"question": 3}}, "question"),
        ({"context": {"documents": "text"}}, "documents"),
        ({"context": {"documents": [3]}}, "document is a int"),
        ({"context": {"documents": [("text", "near")]}}, "document is a tuple"),
        ({"context": {"documents": [("text", True)]}}, "document is a tuple"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, name):
    """With what was expected, and where it was given, with and without a prefix."""
    with pytest.raises(RequestError, match=r"here.*expected") as plain:
        read_options(options, place="here")
    assert name in str(plain.value)
    prefixed = {f"confroute_{key}": value for key, value in options.items()}
    with pytest.raises(RequestError, match="confroute_"):
        split_options(prefixed, place="here")


@pytest.mark.parametrize("given", ["edge", ["route"], 3])
def test_options_that_are_no_mapping_are_refused(given):
    """With the names that there are."""
    with pytest.raises(RequestError, match="route, threshold, tags, purpose, context, question_id"):
        read_options(given, place="the tag")


def test_callers_texts_stay_out_of_errors():
    """A document or a question may be private."""
    for context in ({"question": b"salary"}, {"documents": [b"salary"]}, {"documents": b"salary"}, b"salary"):
        with pytest.raises(RequestError) as error:
            read(context=context)
        assert "salary" not in str(error.value)


def test_documents_of_a_host():
    """Read by its own function, with their scores unless a pair names another one."""
    context = read_documents([Node(), (Node(), 2)], place="p", read_document=read_node)
    assert context == Context(passages=("node", "node"), scores=(0.5, 2.0))
    mixed = read_documents([Node(), ("text", None)], place="p", read_document=read_node)
    assert mixed == Context(passages=("node", "text"))
    assert read_documents([], place="p") == Context()
    with pytest.raises(RequestError, match="Node"):
        read_documents([Node()], place="p")


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), anything, max_size=3))
def test_any_value_is_read_or_refused(options):
    """Nothing else: a caller's mistake never ends in an error of our own making."""
    try:
        found = read(**options)
    except RequestError as error:
        assert "expected" in str(error)  # noqa: PT017  either outcome is fine, a third is not
    else:
        assert set(options) <= set(KEYS)
        assert found.over(found) == found or found.threshold != found.threshold
