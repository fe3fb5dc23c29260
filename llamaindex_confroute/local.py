"""`LocalLLM`: a transformers model in this process as a LlamaIndex LLM, with log-probabilities.

Importing it needs neither torch nor transformers; the model is loaded at its first use.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM

from confroute.concurrency import in_thread, stream_in_thread
from confroute.errors import RequestError
from confroute.models.provider_answers import logprobs_content, role_of
from confroute.types import Generation as Answer
from confroute.types import Message, Usage
from llamaindex_confroute.messages import user_turn
from llamaindex_confroute.responses import to_acompletions, to_completion, to_completions

if TYPE_CHECKING:
    from confroute.models.local import LocalModel, Piece

__all__ = ["LocalLLM"]

CALL_KWARGS = ("temperature", "max_tokens", "top_p", "seed", "stop", "top_logprobs")


class LocalLLM(LLM):
    """LLM whose weights are in this process.

    ::

        LocalLLM(model="qwen2.5-coder-0.5b").chat(
            [ChatMessage(role="user", content="Name a colour.")]
        ).logprobs

    Answers carry `logprobs` (natural logarithms, one per token of the text), `raw` with "usage", "logprobs" in OpenAI's
    shape, "finish_reason" and "model", and the token counts in `additional_kwargs`. Async calls run in threads; cancelling
    the task or closing the stream stops the decoding within one token. `complete` sends its prompt as one user turn,
    through the model's chat template. Calls take `temperature`, `max_tokens`, `top_p`, `seed`, `stop` and
    `top_logprobs`; anything else is refused. `chat(..., n=5)` reads the prompt once for five answers, which stand in `raw["choices"]`.
    An argument that is none of its fields is a TypeError.
    """

    samples_in_one_call: ClassVar[bool] = True

    model: str = Field(
        description="Catalogue name, GGUF file, model folder, 'org/name' or 'org/name:file.gguf'."
    )
    temperature: float = Field(default=0.0, description="0 is greedy.")
    max_tokens: int = Field(default=256, description="Most tokens of an answer.")
    top_p: float = Field(default=1.0, description="In (0, 1].")
    seed: int | None = Field(default=None, description="The same seed gives the same answer.")
    stop: list[str] | None = Field(default=None, description="Strings that end an answer.")
    top_logprobs: int = Field(default=0, description="Likeliest tokens to return at each place.")
    dtype: str | None = Field(
        default=None,
        description="float32, bfloat16, float16, or auto for what this processor is fast in; None for auto above 300 MB on disk, "
        "else float32.",
    )
    context_window: int | None = Field(
        default=None, description="Tokens of prompt and answer; None for the model's own."
    )

    if not TYPE_CHECKING:  # the signature made from the fields is the better one

        def __init__(self, **kwargs: Any) -> None:
            # "class_name" is LlamaIndex's own, in what it serialises.
            unknown = sorted(set(kwargs) - set(type(self).model_fields) - {"class_name"})
            if unknown:
                # pydantic would drop it: a misspelt `max_tokens` must not leave the default one in its place.
                own = [name for name in type(self).model_fields if name not in LLM.model_fields]
                msg = f"{', '.join(unknown)}: expected {', '.join(own)} or a field of LLM"
                raise TypeError(msg)
            super().__init__(**kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Stable name for serialisation."""
        return "confroute_local_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """What callers plan with; loads the model unless `context_window` was given."""
        return LLMMetadata(
            context_window=self.context_window or self.loaded().context_window,
            num_output=self.max_tokens,
            is_chat_model=True,
            model_name=self.model,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return self._answer(messages, kwargs, None)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece."""
        return self._pieces(messages, kwargs, None)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        return await in_thread(lambda cancel: self._answer(messages, kwargs, cancel))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece without blocking the event loop."""
        return stream_in_thread(lambda cancel: self._pieces(messages, kwargs, cancel))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, sent as one user turn whether or not it is `formatted`."""
        return to_completion(self._answer(user_turn(prompt), kwargs, None))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt piece by piece."""
        return to_completions(self._pieces(user_turn(prompt), kwargs, None))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt without blocking the event loop."""
        return to_completion(await in_thread(lambda cancel: self._answer(user_turn(prompt), kwargs, cancel)))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt piece by piece without blocking the event loop."""
        turn = user_turn(prompt)
        return to_acompletions(stream_in_thread(lambda cancel: self._pieces(turn, kwargs, cancel)))

    def _answer(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], cancel: threading.Event | None
    ) -> ChatResponse:
        several = dict(kwargs)
        n = several.pop("n", None) or 1
        asked, model = self._asked(several), self.loaded()
        answers = model.generate(to_messages(messages), n=n, cancel=cancel, **asked)
        return _together(model.name, answers)

    def _pieces(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], cancel: threading.Event | None
    ) -> Generator[ChatResponse, None, None]:
        asked, model = self._asked(kwargs), self.loaded()
        pieces = model.stream(to_messages(messages), cancel=cancel, **asked)
        return _growing(model.name, pieces)

    def _asked(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(kwargs) - set(CALL_KWARGS))
        if unknown:
            msg = f"{', '.join(unknown)}: not known to LocalLLM, which takes {', '.join(CALL_KWARGS)}; leave it out"
            raise RequestError(msg)
        given = {key: value for key, value in kwargs.items() if value is not None}
        asked = {key: given.get(key, getattr(self, key)) for key in CALL_KWARGS}
        asked["stop"] = asked["stop"] or ()
        return asked

    def loaded(self) -> LocalModel:
        """The model itself, shared by all; not kept here, so that copies and pickles hold no weights."""
        from confroute.models.local import LocalModel

        return LocalModel.load(self.model, dtype=self.dtype, context_window=self.context_window)


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """LlamaIndex's messages as a local model reads them.

    Raises
    ------
    RequestError
        A block that is not text.
    """
    return [Message(role=role_of(message.role.value), text=_text(message)) for message in messages]


def _text(message: ChatMessage) -> str:
    parts: list[str] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            parts.append(f"{block.tool_name}({block.tool_kwargs})")
        elif not isinstance(block, ThinkingBlock):
            msg = f"content of type {block.block_type}: LocalLLM takes text only; send it to a model that can, or leave it out"
            raise RequestError(msg)
    return "\n".join(part for part in parts if part)


def _growing(name: str, pieces: Iterator[Piece]) -> Generator[ChatResponse, None, None]:
    """The pieces of an answer, each with all of the text so far."""
    text = ""
    for piece in pieces:
        text += piece.text
        yield _response(name, text, piece.text, piece)


def _together(name: str, answers: Sequence[Answer]) -> ChatResponse:
    """The first answer; where there are several, all of them under "choices" of `raw`, as OpenAI's API has them."""
    first, *others = each = [_response(name, one.text, None, one) for one in answers]
    if not others:
        return first
    counts = _counts(sum((one.usage for one in answers if one.usage), Usage()))
    choices = [
        {
            "message": {"content": one.message.content},
            "logprobs": one.raw["logprobs"],
            "finish_reason": one.raw["finish_reason"],
        }
        for one in each
        if one.raw
    ]
    raw = {"model": name, "usage": counts, "choices": choices}
    return first.model_copy(update={"raw": raw, "additional_kwargs": dict(counts)})


def _response(name: str, text: str, delta: str | None, said: Answer | Piece) -> ChatResponse:
    content = logprobs_content(said.tokens or (), said.logprobs or (), said.top_logprobs)
    counts = _counts(said.usage)
    raw: dict[str, Any] = {"model": name, "finish_reason": said.finish, "logprobs": {"content": content}}
    if counts:
        raw["usage"] = counts
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=text),
        delta=delta,
        raw=raw,
        logprobs=[
            [LogProb(token=one["token"], logprob=one["logprob"], bytes=one["bytes"])] for one in content
        ],
        additional_kwargs=dict(counts),
    )


def _counts(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
