"""`ChatLocal` behaves as a LangChain chat model should."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("torch")
pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import ConfigurableField
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from confroute.errors import RequestError
from confroute.models.local import LocalModel
from confroute.types import Message
from langchain_confroute.local import ChatLocal, to_messages

pytestmark = pytest.mark.local
ASK: list[BaseMessage] = [HumanMessage("Where did the cat sit?")]
SAME = [Message(role="user", text="Where did the cat sit?")]


@pytest.fixture
def chat(tiny_folder: Path) -> ChatLocal:
    """A chat model on the tiny random one."""
    return ChatLocal(model=str(tiny_folder), temperature=1.0, seed=3, max_tokens=12, logprobs=True)


def joined(chunks: list[Any]) -> AIMessageChunk:
    """All chunks added up."""
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


def test_invoke(chat: ChatLocal, tiny: LocalModel) -> None:
    """Text, usage and metadata are those of the model's own answer."""
    (expected,) = tiny.generate(SAME, temperature=1.0, seed=3, max_tokens=12)
    message = chat.invoke(ASK)
    assert message.content == expected.text
    content = message.response_metadata["logprobs"]["content"]
    assert [one["logprob"] for one in content] == pytest.approx(expected.logprobs)
    assert [one["token"] for one in content] == list(expected.tokens)
    assert set(content[0]) == {"token", "logprob", "bytes", "top_logprobs"}
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    assert message.response_metadata["model_name"] == tiny.name
    assert message.response_metadata["model_provider"] == "confroute-local"
    assert message.response_metadata["finish_reason"] == expected.finish
    assert message.usage_metadata == {
        "input_tokens": expected.usage.input_tokens,
        "output_tokens": expected.usage.output_tokens,
        "total_tokens": expected.usage.total_tokens,
    }


def test_logprobs_only_when_asked(chat: ChatLocal) -> None:
    """Without the wish there are none; a call's wish beats the field."""
    assert "logprobs" not in chat.invoke(ASK, logprobs=False).response_metadata
    silent = chat.model_copy(update={"logprobs": None})
    assert "logprobs" not in silent.invoke(ASK).response_metadata
    assert silent.invoke(ASK, logprobs=True).response_metadata["logprobs"]["content"]


def test_alternatives_have_openais_shape(tiny_folder: Path) -> None:
    """`top_logprobs` takes effect with `logprobs`."""
    chat = ChatLocal(model=str(tiny_folder), max_tokens=3, logprobs=True, top_logprobs=2)
    content = chat.invoke("the cat").response_metadata["logprobs"]["content"]
    assert [len(one["top_logprobs"]) for one in content] == [2] * len(content)


def test_stream_adds_up_to_invoke(chat: ChatLocal) -> None:
    """The chunks' sum is invoke's message; usage and names stand on the last chunk only."""
    whole = chat.invoke(ASK)
    chunks = list(chat.stream(ASK))
    total = joined(chunks)
    assert total.content == whole.content
    assert total.usage_metadata == whole.usage_metadata
    assert total.response_metadata == whole.response_metadata
    assert [bool(chunk.usage_metadata) for chunk in chunks].count(True) == 1
    assert chunks[-1].chunk_position == "last"
    assert len(chunks) > 3


async def test_async_forms(chat: ChatLocal) -> None:
    """`ainvoke` and `astream` give what the sync forms give."""
    whole = chat.invoke(ASK)
    assert (await chat.ainvoke(ASK)).response_metadata == whole.response_metadata
    assert joined([chunk async for chunk in chat.astream(ASK)]).content == whole.content


def test_several_answers_from_one_prompt(chat: ChatLocal) -> None:
    """`n` gives as many answers, each with its own log-probabilities; usage is the call's, once."""
    result = chat.generate([ASK], n=4)
    messages = [generation.message for generation in result.generations[0]]
    assert len({message.content for message in messages}) > 1
    assert [message.usage_metadata is None for message in messages] == [False, True, True, True]
    written = sum(len(message.response_metadata["logprobs"]["content"]) for message in messages)
    assert messages[0].usage_metadata["output_tokens"] >= written
    with get_usage_metadata_callback() as usage:
        chat.generate([ASK], n=4)
    (counted,) = usage.usage_metadata.values()
    assert counted["output_tokens"] >= 4
    for message in messages:
        tokens = [one["token"] for one in message.response_metadata["logprobs"]["content"]]
        assert "".join(tokens) == message.content
    with pytest.raises(RequestError, match="cannot be streamed"):
        list(chat.stream(ASK, n=2))


def test_call_arguments(chat: ChatLocal, tiny: LocalModel) -> None:
    """A call's own temperature, max_tokens, seed, top_p and stop reach the model."""
    (greedy,) = tiny.generate(SAME, max_tokens=5)
    assert chat.invoke(ASK, temperature=0.0, max_tokens=5).content == greedy.text
    assert chat.invoke(ASK, seed=4).content != chat.invoke(ASK).content
    stop = chat.invoke(ASK).content[2]
    cut = chat.invoke(ASK, stop=[stop])
    assert stop not in cut.content
    assert cut.response_metadata["finish_reason"] == "stop"
    assert chat.model_copy(update={"stop": [stop]}).invoke(ASK).content == cut.content
    assert chat.invoke(ASK, top_p=1e-6).content == chat.invoke(ASK, temperature=0.0).content


def test_unknown_call_arguments(chat: ChatLocal) -> None:
    """What is not known is refused by name."""
    with pytest.raises(RequestError, match="frequency_penalty"):
        chat.invoke(ASK, frequency_penalty=1.0)


def test_a_misspelt_argument_is_refused(chat: ChatLocal) -> None:
    """At construction, with the names that are taken; copies, pickles, bindings and configurable fields are not."""
    with pytest.raises(
        TypeError, match=r"max_token: expected model, temperature, max_tokens, .* BaseChatModel"
    ):
        ChatLocal(model="smollm2-135m", max_token=5)  # type: ignore[call-arg]  # the mistake
    for same in (pickle.loads(pickle.dumps(chat)), copy.deepcopy(chat), chat.model_copy()):
        assert same == chat
    assert ChatLocal(model="m", name="mine", tags=["t"], disable_streaming=True).name == "mine"
    configurable = chat.configurable_fields(max_tokens=ConfigurableField(id="most"))
    configured, _ = configurable.prepare({"configurable": {"most": 2}})
    assert configured.max_tokens == 2


def test_usage_callback(chat: ChatLocal) -> None:
    """LangChain's own usage handler counts each call once."""
    with get_usage_metadata_callback() as usage:
        message = chat.invoke(ASK)
        list(chat.stream(ASK))
    (counted,) = usage.usage_metadata.values()
    assert counted["output_tokens"] == 2 * message.usage_metadata["output_tokens"]


def test_messages() -> None:
    """Every role and text block is understood; what is not text is refused."""
    turns = [
        SystemMessage("s"),
        HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        AIMessage("", tool_calls=[{"name": "add", "args": {"x": 1}, "id": "1"}]),
        ToolMessage("2", tool_call_id="1"),
        ChatMessage("c", role="user"),
    ]
    assert [(m.role, m.text) for m in to_messages(turns)] == [
        ("system", "s"),
        ("user", "ab"),
        ("assistant", "add({'x': 1})"),
        ("tool", "2"),
        ("user", "c"),
    ]
    with pytest.raises(RequestError, match=r"image_url.*text only"):
        to_messages([HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])])
    with pytest.raises(RequestError, match="role 'oracle'"):
        to_messages([ChatMessage("c", role="oracle")])


def test_tools_are_not_supported(chat: ChatLocal) -> None:
    """`bind_tools` raises as the base class does, and the profile says so."""
    with pytest.raises(NotImplementedError):
        chat.bind_tools([])
    assert chat.profile["tool_calling"] is False
    assert chat.model_copy(update={"profile": None}).profile is None
    assert ChatLocal(model="x", context_window=99).profile["max_input_tokens"] == 99


def test_counting(chat: ChatLocal, tiny: LocalModel) -> None:
    """Tokens are counted by the model's own tokenizer."""
    assert chat.get_num_tokens_from_messages(ASK) == tiny.count_tokens(SAME)
    assert chat.get_num_tokens("the cat") == len(tiny.tokenizer.encode("the cat", add_special_tokens=False))


def test_copies_share_the_weights(chat: ChatLocal) -> None:
    """A copy and a pickle hold no weights and answer the same."""
    expected = chat.invoke(ASK).content
    frozen = pickle.dumps(chat)
    assert len(frozen) < 10_000
    assert pickle.loads(frozen).invoke(ASK).content == expected
    assert copy.deepcopy(chat).invoke(ASK).content == expected


def test_tracing_names(chat: ChatLocal) -> None:
    """Traces name provider and model, a call's own included."""
    assert chat._get_ls_params()["ls_provider"] == "confroute-local"
    assert chat._get_ls_params(model="other")["ls_model_name"] == "other"


async def test_the_event_loop_keeps_turning(chat: ChatLocal) -> None:
    """Other tasks run while an answer is decoded."""
    await chat.ainvoke(ASK)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await chat.ainvoke(ASK, max_tokens=100, stop=None)
    ticking.cancel()
    assert ticks > 5


async def stopped(steps: list[int]) -> bool:
    """Whether decoding has ended: the step under way and the one that notices may still come."""
    taken = len(steps)
    await asyncio.sleep(0.5)
    return len(steps) <= taken + 2


async def test_cancelling_a_task_stops_decoding(chat: ChatLocal, steps: list[int]) -> None:
    """No step is taken after the task is gone."""
    task = asyncio.create_task(chat.ainvoke(ASK, max_tokens=200, temperature=5.0))
    while not steps:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stopped(steps)


async def test_closing_a_stream_stops_decoding(chat: ChatLocal, steps: list[int]) -> None:
    """Nor after a stream is closed behind its first chunk, async or sync."""
    stream = chat.astream(ASK, max_tokens=200, temperature=5.0)
    await anext(stream)
    await stream.aclose()
    assert await stopped(steps)
    sync = chat.stream(ASK, max_tokens=200, temperature=5.0)
    next(sync)
    sync.close()
    assert await stopped(steps)


def test_batch_is_thread_safe(chat: ChatLocal) -> None:
    """A batch in threads gives what single calls give."""
    asks = [[HumanMessage(text)] for text in ("a", "the cat", "mat", "on")]
    assert [m.content for m in chat.batch(asks)] == [chat.invoke(ask).content for ask in asks]
    assert threading.active_count() < 50


def test_import_without_torch() -> None:
    """Importing and building the class imports no torch."""
    code = "import sys; from langchain_confroute.local import ChatLocal; ChatLocal(model='x'); assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Standard:
    """What LangChain's standard suites need to know; the tiny model's text is nonsense, so no tools, schemas or images."""

    folder: ClassVar[Path]

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder: Path) -> None:
        Standard.folder = tiny_folder

    @property
    def chat_model_class(self) -> type[ChatLocal]:
        """The class under test."""
        return ChatLocal

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Its arguments."""
        return {"model": str(Standard.folder)}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Few tokens, for speed."""
        return {"temperature": 0, "max_tokens": 12, "timeout": 60, "stop": [], "max_retries": 2}

    @property
    def has_tool_calling(self) -> bool:
        """None."""
        return False

    @property
    def has_structured_output(self) -> bool:
        """None."""
        return False


class TestStandardUnit(Standard, ChatModelUnitTests):
    """LangChain's standard unit tests."""


class TestStandardIntegration(Standard, ChatModelIntegrationTests):
    """LangChain's standard integration tests."""
