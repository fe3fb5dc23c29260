"""Trouble with tools, against values worked out by hand: the core, both hosts, recorded runs."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

from confroute import Cascade, Gate, Threshold, TokenLogprob
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.hosts.tool_calls import OfferedTool, ToolCall, call_digest, check_tool_calls, with_verdict
from confroute.recording import Row, Side, with_signals
from confroute.recording.prompts import messages_of
from confroute.signals import Case, ToolTrouble
from confroute.signals.tool_trouble import tells_of_failure
from confroute.types import Generation, Message, Tier
from langchain_confroute import ChatConfRoute
from langchain_confroute.messages import to_core as from_langchain
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute.messages import to_core as from_llamaindex

USER = Message(role="user", text="The weather in Oslo?")


def called(*names):
    return Message(role="assistant", text="", calls=names)


def told(text, *, failed=False):
    return Message(role="tool", text=text, failed=failed)


def measured(*turn, signal=None, draft=""):
    case = Case(
        tier=Tier(name="edge", model="small"),
        question="?",
        draft=Generation(text="It is warm.", calls=(draft,) if draft else ()),
        messages=(USER, *turn),
    )
    asking = (signal or ToolTrouble()).measure(case)
    with pytest.raises(StopIteration) as done:
        next(asking)
    return done.value.value


@pytest.mark.parametrize(
    ("turn", "wrong"),
    [
        ((called("a"), told("4 degrees")), {}),
        ((called("a"), told("4 degrees", failed=True)), {"failed": 1}),
        ((called("a"), told("Error: timeout")), {"failed": 1}),
        ((called("a"), told("4"), called("a"), told("5")), {"repeated": 1}),
        ((called("a"), told("4"), called("b"), told("4")), {"nothing_new": 1}),
        ((called("a"), told(" [] ")), {"nothing_new": 1}),
        # Two calls at once: results in the order of the calls.
        ((called("a", "a"), told("4"), told("4")), {"repeated": 1}),
        ((called("a"), told("Error: x"), called("a"), told("Error: x"), called("b"), told("")), {"failed": 2, "nothing_new": 1}),
        # Only the last three count, and only since the user last spoke.
        ((called("a"), told("Error: x"), called("b"), told("1"), called("c"), told("2"), called("d"), told("3")), {}),
        ((called("a"), told("Error: x"), USER, called("a"), told("4")), {}),
    ],
)  # fmt: skip
def test_by_hand(turn, wrong):
    """The share of three steps, and why."""
    found = measured(*turn)
    assert {name: count for name, count in found.details.items() if name != "steps"} == wrong
    assert found.uncertainty == pytest.approx(sum(wrong.values()) / 3, abs=1e-6)
    assert found.uncertainty in ToolTrouble().range


def test_a_draft_can_repeat_a_call():
    """A draft that is the call which just failed is a second step in trouble."""
    turn = (called("a"), told("Error: x"))
    assert measured(*turn, draft="a").details == {"steps": 2, "failed": 1, "repeated": 1}
    assert measured(*turn, draft="b").details == {"steps": 2, "failed": 1}


def test_settings():
    """Fewer steps weigh more; tools that answer "ok" are no trouble where that is said; nonsense is refused."""
    turn = (called("a"), told("ok"), called("b"), told("ok"))
    assert measured(*turn, signal=ToolTrouble(steps=1)).uncertainty == 1
    assert measured(*turn, signal=ToolTrouble(same_result=False)).uncertainty == 0
    for steps in (0, 1.5, True):
        with pytest.raises(PolicyError, match="whole number"):
            ToolTrouble(steps=steps)


def test_without_a_tool_there_is_no_evidence():
    """Never a low uncertainty in its place."""
    case = Case(tier=Tier(name="edge", model="m"), question="?", draft=Generation(text="x"), messages=(USER,))
    with pytest.raises(SignalUnavailableError, match="no tool has answered"):
        next(ToolTrouble().measure(case))


@pytest.mark.parametrize(
    "text",
    [
        "Error: no such city", "ValueError: no such city", "ValueError('x')", "Error invoking tool 'a'",
        "Encountered error: x", "Traceback (most recent call last):\n ...", "An unexpected error occurred.",
        "Failed to fetch the page", '{"error": {"code": 404}}', '{"isError": true, "content": []}', '{"status": "error"}',
    ],
)  # fmt: skip
def test_words_of_failure(text):
    """As tools, servers and frameworks write them."""
    assert tells_of_failure(text)


@pytest.mark.parametrize(
    "text",
    [
        "Error handling in Python is done with try.", "Errors: none", "The error was 4 percent.", '{"error": null}', '{"error": false}',
        "{not json", "[1, 2]", "", "Terror attacks in 1900", '{"status": "ok", "text": "error"}',
    ],
)  # fmt: skip
def test_words_that_are_none(text):
    """What was found may speak of errors."""
    assert not tells_of_failure(text)


def test_the_same_conversation_in_every_form():
    """LangChain's, LlamaIndex's and a recorded one have the same calls, the same failures and the same uncertainty."""
    arguments = {"city": "Oslo", "day": 1}
    call = {"name": "weather", "args": arguments, "id": "1"}
    langchain = from_langchain(
        [
            HumanMessage("?"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("no", tool_call_id="1", status="error"),
        ]
    )
    block = ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs=arguments)
    llamaindex = from_llamaindex(
        [
            ChatMessage(role="user", content="?"),
            ChatMessage(role="assistant", blocks=[block]),
            ChatMessage(role="tool", content="no", additional_kwargs={"tool_call_id": "1", "is_error": True}),
        ]
    )
    written = {"function": {"name": "weather", "arguments": '{"day": 1, "city": "Oslo"}'}}
    row = Row(
        id="a",
        messages=(
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": None, "tool_calls": [written]},
            {"role": "tool", "content": "no", "is_error": True},
        ),
        edge=Side(text="It is warm."),
    )
    for messages in (langchain, llamaindex, messages_of(row)):
        assert [one.calls for one in messages] == [(), (call_digest("weather", arguments),), ()]
        assert [one.failed for one in messages] == [False, False, True]
        assert measured(*messages[1:]).uncertainty == pytest.approx(1 / 3, abs=1e-6)
    assert with_signals(row).signals["tool_trouble"] == pytest.approx(1 / 3, abs=1e-6)
    assert messages_of(row)[1].text.startswith("weather(")  # a text model is told of the call


def test_a_checked_draft_knows_its_calls_as_they_were_written():
    """Defaults of a schema do not make a repeated call another one."""
    call = ToolCall(name="add", arguments={"a": 1})
    verdict = check_tool_calls([call], {"add": OfferedTool(name="add")})
    assert with_verdict(Generation(text=""), verdict).calls == (call_digest("add", {"a": 1}),)


def test_in_a_decision_without_texts():
    """A failed tool escalates a draft that its tokens would keep, and the decision says so without a word of the call."""
    gates = (
        Gate(signal=ToolTrouble(steps=1), threshold=Threshold(value=0.5), grey=(-1.0, 0.5)),
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.25)),
    )
    edge, cloud = ScriptedChat.of("4", name="small", logprob=-0.01), ScriptedChat.of("four", name="large")
    router = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade(gates=gates))
    call = {"name": "secretly", "args": {"city": "Oslo"}, "id": "1"}
    for status, route in (("error", "cloud"), ("success", "edge")):
        result = ToolMessage("gone away", tool_call_id="1", status=status)
        answer = router.invoke([HumanMessage("?"), AIMessage("", tool_calls=[call]), result])
        decision = answer.response_metadata["confroute"]
        assert (decision["route"], decision["signals"]["tool_trouble"]["uncertainty"]) == (
            route,
            float(status == "error"),
        )
        assert not any(word in str(decision) for word in ("secretly", "Oslo", "gone away"))
