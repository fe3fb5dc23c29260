"""`LocalLLM` behaves as a LlamaIndex LLM should."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_index.core")

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    TextBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

from confroute import Cascade, SemanticEntropy, record
from confroute.errors import RequestError
from confroute.models.local import LocalModel
from confroute.types import Message
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.local import LocalLLM, to_messages

pytestmark = pytest.mark.local
PROMPT = "Where did the cat sit?"
ASK = [ChatMessage(role="user", content=PROMPT)]
SAME = [Message(role="user", text=PROMPT)]
Answer = ChatResponse | CompletionResponse


@pytest.fixture
def llm(tiny_folder: Path) -> LocalLLM:
    """An LLM on the tiny random model."""
    return LocalLLM(model=str(tiny_folder), temperature=1.0, seed=3, max_tokens=12)


def text_of(answer: Answer) -> str:
    """The text so far, of either kind of answer."""
    return answer.text if isinstance(answer, CompletionResponse) else answer.message.content or ""


async def all_forms(llm: LocalLLM, **kwargs: Any) -> dict[str, list[Answer]]:
    """What each of the eight entry points gives, as a list of chunks."""
    return {
        "chat": [llm.chat(ASK, **kwargs)],
        "complete": [llm.complete(PROMPT, **kwargs)],
        "achat": [await llm.achat(ASK, **kwargs)],
        "acomplete": [await llm.acomplete(PROMPT, **kwargs)],
        "stream_chat": list(llm.stream_chat(ASK, **kwargs)),
        "stream_complete": list(llm.stream_complete(PROMPT, **kwargs)),
        "astream_chat": [x async for x in await llm.astream_chat(ASK, **kwargs)],
        "astream_complete": [x async for x in await llm.astream_complete(PROMPT, **kwargs)],
    }


async def test_every_form_gives_the_models_answer(llm: LocalLLM, tiny: LocalModel) -> None:
    """Text, deltas, log-probabilities and usage agree in all eight forms."""
    (expected,) = tiny.generate(SAME, temperature=1.0, seed=3, max_tokens=12)
    counts = {
        "prompt_tokens": expected.usage.input_tokens,
        "completion_tokens": expected.usage.output_tokens,
        "total_tokens": expected.usage.total_tokens,
    }
    for form, answers in (await all_forms(llm)).items():
        last = answers[-1]
        assert text_of(last) == expected.text, form
        assert last.raw["usage"] == last.additional_kwargs == counts, form
        assert last.raw["finish_reason"] == expected.finish
        assert last.raw["model"] == tiny.name
        logprobs = [one.logprob for answer in answers for (one,) in answer.logprobs]
        assert logprobs == pytest.approx(expected.logprobs), form
        content = [one["token"] for answer in answers for one in answer.raw["logprobs"]["content"]]
        assert content == list(expected.tokens), form
        if "stream" in form:
            assert "".join(answer.delta for answer in answers) == expected.text
            assert len(answers) > 3
            assert all("usage" not in answer.raw for answer in answers[:-1])


async def test_call_arguments(llm: LocalLLM, tiny: LocalModel) -> None:
    """A call's own arguments reach the model in every form; unknown ones are refused by name."""
    (greedy,) = tiny.generate(SAME, max_tokens=5)
    for form, answers in (await all_forms(llm, temperature=0.0, max_tokens=5)).items():
        assert text_of(answers[-1]) == greedy.text, form
    stop = llm.complete(PROMPT).text[2]
    assert stop not in llm.complete(PROMPT, stop=[stop]).text
    with pytest.raises(RequestError, match="frequency_penalty"):
        llm.chat(ASK, frequency_penalty=1)


async def test_tokens_are_counted_once(llm: LocalLLM) -> None:
    """LlamaIndex's own counter sees one event a call, with the model's counts."""
    counter = TokenCountingHandler(tokenizer=str.split)
    llm.callback_manager = CallbackManager([counter])
    forms = await all_forms(llm)
    used = llm.complete(PROMPT).additional_kwargs
    assert len(counter.llm_token_counts) == len(forms) + 1
    assert counter.prompt_llm_token_count == 9 * used["prompt_tokens"]
    assert counter.completion_llm_token_count == 9 * used["completion_tokens"]


def test_metadata(llm: LocalLLM, tiny: LocalModel) -> None:
    """Window, output and name, of weights that are loaded once; without loading when the window is given."""
    assert llm.metadata.context_window == tiny.context_window
    assert llm.metadata.num_output == 12
    assert llm.metadata.is_chat_model
    assert not llm.metadata.is_function_calling_model
    assert llm.metadata.model_name == llm.model
    assert llm.loaded().network is tiny.network
    assert LocalLLM(model="not/there", context_window=99).metadata.context_window == 99


def test_messages() -> None:
    """Text blocks are joined; an image is refused."""
    message = ChatMessage(role="developer", blocks=[TextBlock(text="a"), TextBlock(text="b")])
    assert to_messages([message]) == [Message(role="system", text="a\nb")]
    with pytest.raises(RequestError, match=r"image.*text only"):
        to_messages([ChatMessage(role="user", blocks=[ImageBlock(url="https://example.org/x.png")])])


def test_a_misspelt_argument_is_refused(llm: LocalLLM) -> None:
    """At construction, with the names that are taken; what LlamaIndex writes of it can be read again."""
    with pytest.raises(
        TypeError, match=r"max_token: expected model, temperature, max_tokens, .* field of LLM"
    ):
        LocalLLM(model="smollm2-135m", max_token=5)  # type: ignore[call-arg]  # the mistake
    assert LocalLLM.from_json(llm.to_json()).max_tokens == llm.max_tokens
    assert LocalLLM(**llm.to_dict()).max_tokens == llm.max_tokens
    assert LocalLLM(model="m", system_prompt="Be short.").system_prompt == "Be short."


def test_pickle(llm: LocalLLM) -> None:
    """A pickle holds no weights and answers the same."""
    frozen = pickle.dumps(llm)
    assert len(frozen) < 20_000
    assert pickle.loads(frozen).complete(PROMPT).text == llm.complete(PROMPT).text


async def test_the_event_loop_keeps_turning(llm: LocalLLM) -> None:
    """Other tasks run during achat, acomplete and the async streams."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def stream() -> None:
        async for _ in await llm.astream_chat(ASK, max_tokens=60):
            pass

    calls: list[Callable[[], Any]] = [
        lambda: llm.achat(ASK, max_tokens=60),
        lambda: llm.acomplete(PROMPT, max_tokens=60),
        stream,
    ]
    ticking = asyncio.create_task(tick())
    for call in calls:
        before = ticks
        await call()
        assert ticks - before > 3
    ticking.cancel()


async def stopped(steps: list[int]) -> bool:
    """Whether decoding has ended: the step under way and the one that notices may still come."""
    taken = len(steps)
    await asyncio.sleep(0.5)
    return len(steps) <= taken + 2


async def test_leaving_early_stops_decoding(llm: LocalLLM, steps: list[int]) -> None:
    """A cancelled task and closed streams take no further steps."""
    task = asyncio.create_task(llm.achat(ASK, max_tokens=200, temperature=5.0))
    while not steps:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stopped(steps)
    for start in (
        llm.astream_chat(ASK, max_tokens=200, temperature=5.0),
        llm.astream_complete(PROMPT, max_tokens=200, temperature=5.0),
    ):
        stream = await start
        await anext(stream)
        await stream.aclose()
        assert await stopped(steps)
    sync = llm.stream_chat(ASK, max_tokens=200, temperature=5.0)
    next(sync)
    sync.close()
    assert await stopped(steps)


def test_import_without_torch() -> None:
    """Importing and building the class imports no torch."""
    code = "import sys; from llamaindex_confroute.local import LocalLLM; LocalLLM(model='x'); assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_answers_from_one_prompt(llm: LocalLLM) -> None:
    """`n` reads the prompt once; all answers stand in `raw`, the usage is the call's and counted once."""
    response = llm.chat(ASK, n=3)
    choices = response.raw["choices"]
    assert len(choices) == 3
    assert choices[0]["message"]["content"] == response.message.content
    written = sum(len(choice["logprobs"]["content"]) for choice in choices)
    assert response.raw["usage"]["completion_tokens"] >= written
    assert response.raw["usage"]["prompt_tokens"] == llm.chat(ASK).raw["usage"]["prompt_tokens"]


def test_the_router_draws_its_samples_in_one_call(llm: LocalLLM) -> None:
    """One event for a step of samples, and each sample's text reaches the policy."""
    other = LocalLLM(model=llm.model, max_tokens=4, temperature=0.9)
    policy = Cascade.of(SemanticEntropy(n=4, step=4), 1.0, on_unfinished="judge")
    with record() as decisions:
        ConfRouteLLM(edge=llm, cloud=other, policy=policy).chat(ASK)
    (draft, sampled) = decisions[0].steps
    assert (draft.kind, sampled.kind, sampled.n) == ("draft", "sample", 4)
    assert sampled.usage.output_tokens >= 4
    assert decisions[0].signals["semantic_entropy"].details["drawn"] == 4


def test_each_of_several_samples_is_a_response_of_its_own(tiny_folder: Path) -> None:
    """What the router may return: the sample's own text and tokens, the usage of the call on the first only."""
    from llamaindex_confroute.responses import extract_token_logprobs, to_generation, to_generations

    llm = LocalLLM(model=str(tiny_folder), temperature=1.0, seed=3, max_tokens=8)
    response = llm.chat([ChatMessage(role="user", content="the cat")], n=3)
    answers = to_generations(response, model="tiny", n=3)
    assert len({answer.text for answer in answers}) > 1
    for place, answer in enumerate(answers):
        assert answer.raw.message.content == answer.text
        assert extract_token_logprobs(answer.raw) == answer.logprobs
        again = to_generation(answer.raw, model="tiny")
        assert (again.usage is None) == (place > 0)
        assert again.finish == answer.finish
    assert response.message.content == answers[0].text, "the model's own response is left alone"
    assert len(response.raw["choices"]) == 3
