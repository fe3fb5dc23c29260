"""What values print of themselves: nothing that somebody asked or was answered."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import confroute
import langchain_confroute
import llamaindex_confroute
from confroute import Router
from confroute.asks import Embed, Entails, Final, Prompt, Score
from confroute.hosts.chat import read_chat
from confroute.hosts.options import CallOptions
from confroute.judge import Pair, Single
from confroute.recording import row_from_dict
from confroute.testing import Reply, ScriptedModel
from confroute.types import Context, Generation, Message, Reading, Request

SECRET = "Ann earns 4,100"
MESSAGE = Message(role="user", text=SECRET, beside=SECRET, calls=(SECRET,))
ANSWER = Generation(text=SECRET, tokens=(SECRET,), answer=SECRET, calls=(SECRET,), fields={SECRET: (0.0,)})
SIDE = {
    "model": "m",
    "text": SECRET,
    "answer": SECRET,
    "quality": 1.0,
    "samples": [{"text": SECRET, "answer": SECRET, "of_ours": SECRET}],
    "of_ours": SECRET,
}
VALUES = (
    MESSAGE,
    ANSWER,
    Context(passages=(SECRET,), existing_answer=SECRET),
    Reading(texts=(SECRET,)),
    Request(messages=(MESSAGE,), question=SECRET, context=Context(passages=(SECRET,))),
    CallOptions(question=SECRET),
    read_chat({"messages": [{"role": "user", "content": SECRET}], "stop": [SECRET]}),
    Prompt(tier="edge", messages=(MESSAGE,)),
    Final(tier="edge", note=SECRET),
    Score(tier="edge", answer=SECRET),
    Embed(texts=(SECRET,), model="encoder"),
    Entails(pairs=((SECRET, SECRET),), model="nli"),
    Pair(id="1", question=SECRET, a=SECRET, b=SECRET, reference=SECRET),
    Single(id="1", question=SECRET, answer=SECRET, reference=SECRET),
    row_from_dict(
        {"id": "1", "prompt": SECRET, "reference": SECRET, "edge": SIDE, "cloud": SIDE, "of_ours": SECRET}
    ),
    Router(edge=ScriptedModel([Reply(text=SECRET)]), cloud=ScriptedModel([SECRET])).ask(SECRET),
)
# Fields that hold what was asked or answered, wherever they stand.
TEXTS = frozenset(
    {
        *(
            "text",
            "texts",
            "prompt",
            "question",
            "messages",
            "context",
            "passages",
            "existing_answer",
            "reference",
            "beside",
            "note",
        ),
        *(
            "answer",
            "response_a",
            "response_b",
            "a",
            "b",
            "tokens",
            "top_logprobs",
            "alternatives",
            "samples",
            "representatives",
        ),
        *("calls", "arguments", "inputs", "kwargs", "stop", "chat", "sent", "pairs", "given", "extra"),
    }
)
# Types of fields so named that hold numbers, or values that print no words themselves.
WORDLESS = (
    *(
        "int",
        "bool",
        "float",
        "Counter",
        "Numbers",
        "Array",
        "dict[str, Array]",
        "dict[str, array",
        "dict[Statistic",
        "tuple[int",
    ),
    *("Generation", "Sequence[SeenCall]", "Callable", "Flags", "BetaBinomial", "EwensMixture"),
)
# Scripts of tests, questions and results of our own, columns of numbers.
OPEN = (
    "confroute.testing",
    "confroute.bench",
    "confroute.demo",
    "confroute.views",
    "llamaindex_confroute.testing",
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_prints_no_words(value):
    """Tracebacks with their variables, and logs, hold what values print."""
    assert SECRET not in repr(value)
    assert SECRET not in str(value)


def values():
    """Every dataclass of the packages whose repr its fields make."""
    for package in (confroute, langchain_confroute, llamaindex_confroute):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name == "confroute.__main__" or found.name.startswith(OPEN):
                continue
            for value in vars(importlib.import_module(found.name)).values():
                if dataclasses.is_dataclass(value) and getattr(value, "__module__", "") == found.name:
                    yield value


def test_no_field_of_texts_is_printed():
    """Those of values that come later as well."""
    known = [*values()]
    assert len(known) > 150
    shown = {
        f"{kind.__module__}.{kind.__qualname__}.{part.name}: {part.type}"
        for kind in known
        if kind.__dataclass_params__.repr
        for part in dataclasses.fields(kind)
        if part.repr
        and part.name in TEXTS & {*kind.__annotations__}
        and not str(part.type).startswith(WORDLESS)
    }
    assert sorted(shown) == []
