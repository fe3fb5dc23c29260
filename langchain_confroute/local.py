"""`ChatLocal`: a transformers model in this process as a LangChain chat model, with log-probabilities.

Importing it needs neither torch nor transformers; the model is loaded at its first use.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from confroute.concurrency import in_thread, stream_in_thread
from confroute.errors import RequestError
from confroute.models.provider_answers import is_role, logprobs_content, role_of
from confroute.types import Generation, Message, Role, Usage
from langchain_confroute.compat import AsyncManager, Manager, Stop

if TYPE_CHECKING:
    from confroute.models.local import LocalModel, Piece

__all__ = ["ChatLocal"]

PROVIDER = "confroute-local"
CALL_KWARGS = ("temperature", "max_tokens", "top_p", "seed", "logprobs", "top_logprobs", "n", "model")
# Set by LangChain itself for tracing; it means nothing to a model.
IGNORED_KWARGS = ("ls_structured_output_format",)
# LangChain's standard arguments of models behind a server: code that builds any chat model passes them.
_OF_SERVERS = ("timeout", "max_retries", "api_key", "streaming")
# Blocks of content that are text, or that are left out because they stand elsewhere in the message.
_READ = {"text", "reasoning", "tool_use", "tool_call"}
_SETTINGS = (
    *("model", "temperature", "max_tokens", "top_p", "seed", "stop"),
    *("logprobs", "top_logprobs", "dtype", "context_window"),
)


class ChatLocal(BaseChatModel):
    """Chat model whose weights are in this process.

    Setup
        ``pip install 'confroute[local]'``, then ``confroute pull qwen2.5-coder-0.5b`` or a GGUF file or model folder of yours.

    Instantiate
        ::

            model = ChatLocal(model="qwen2.5-coder-0.5b", max_tokens=64, logprobs=True)

    Invoke, stream, async
        All of `invoke`, `batch`, `stream` and their async forms. Async calls run in threads; cancelling the task or
        closing the stream stops the decoding within one token.

    Call arguments
        `temperature`, `max_tokens`, `top_p`, `seed`, `stop`, `logprobs`, `top_logprobs`, `model`, and `n` in `generate`: n answers from
        one reading of the prompt. Anything else is refused.

    Token usage
        `usage_metadata`; with n > 1 the first answer carries that of the whole call, and the others none.

    Logprobs
        With `logprobs=True`, `response_metadata["logprobs"]` in OpenAI's shape; natural logarithms.

    Tool calling
        Not supported, since each template writes calls in words of its own: `bind_tools` raises LangChain's NotImplementedError. Tool turns of a history are sent as text.

    Attributes
    ----------
    model : str
        Catalogue name, GGUF file, model folder, "org/name" or "org/name:file.gguf".
    temperature : float
        0 (default) is greedy.
    max_tokens : int
        Most tokens of an answer.
    top_p : float
        In (0, 1].
    seed : int or None
        The same seed gives the same answer.
    stop : list of str or None
        Strings that end an answer; a call's own replace them.
    logprobs : bool or None
        Whether answers carry log-probabilities.
    top_logprobs : int or None
        Likeliest tokens to return at each place, beside the one that was drawn; takes effect with `logprobs`.
    dtype : {"float32", "bfloat16", "float16", "auto"} or None
        Of the weights; None, as the command line: "auto" for more than 300 MB on disk, else float32. "auto" is bfloat16 where
        this processor is fast in it.
    context_window : int or None
        Tokens of prompt and answer together; None for the model's own.

    Raises
    ------
    TypeError
        An argument that is none of its fields; `timeout`, `max_retries`, `api_key` and `streaming`, which mean nothing
        in this process, are taken and ignored.
    """

    model: str
    temperature: float = 0.0
    max_tokens: int = 256
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    dtype: str | None = None
    context_window: int | None = None

    if not TYPE_CHECKING:  # the signature made from the fields is the better one

        def __init__(self, **kwargs: Any) -> None:
            unknown = sorted(set(kwargs) - set(type(self).model_fields) - set(_OF_SERVERS))
            if unknown:
                # pydantic would drop it: a misspelt `max_tokens` must not leave the default one in its place.
                own = [name for name in type(self).model_fields if name not in BaseChatModel.model_fields]
                msg = f"{', '.join(unknown)}: expected {', '.join(own)} or a field of BaseChatModel"
                raise TypeError(msg)
            super().__init__(**kwargs)

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        # The window is the caller's only: asking the model for its own would load it at construction.
        unable = dict.fromkeys(("image_inputs", "audio_inputs", "tool_calling", "structured_output"), False)
        known = cast("ModelProfile", {"text_inputs": True, **unable})
        if self.context_window is not None:
            known["max_input_tokens"] = self.context_window
        return known

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of the prompt that these messages become, chat template included."""
        if tools:
            msg = "tools cannot be counted: ChatLocal does not send tools; leave them out"
            raise RequestError(msg)
        return self._local({}).count_tokens(to_messages(messages))

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a bare text, without template or special tokens."""
        ids: list[int] = self._local({}).tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _generate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Manager = None, **kwargs: Any
    ) -> ChatResult:
        return self._answer(messages, stop, kwargs, None)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: AsyncManager = None, **kwargs: Any
    ) -> ChatResult:
        return await in_thread(lambda cancel: self._answer(messages, stop, kwargs, cancel))

    def _stream(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Manager = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        return self._chunks(messages, stop, kwargs, None)

    async def _astream(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: AsyncManager = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = stream_in_thread(lambda cancel: self._chunks(messages, stop, kwargs, cancel))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    def _answer(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
        cancel: threading.Event | None,
    ) -> ChatResult:
        n, logprobs, parameters = self._parameters(stop, kwargs)
        model = self._local(kwargs)
        answers = model.generate(to_messages(messages), n=n, cancel=cancel, **parameters)
        # As every provider does: LangChain's usage callback reads the first answer of a call only.
        total = sum((answer.usage for answer in answers if answer.usage), Usage())
        usages = [total, *[None] * (n - 1)]
        return ChatResult(
            generations=[
                _generation(replace(answer, usage=usage), logprobs=logprobs)
                for answer, usage in zip(answers, usages, strict=True)
            ]
        )

    def _chunks(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
        cancel: threading.Event | None,
    ) -> Iterator[ChatGenerationChunk]:
        n, logprobs, parameters = self._parameters(stop, kwargs)
        if n > 1:
            msg = f"n={n} cannot be streamed: the answers would be mixed; draw them with generate(), with disable_streaming=True"
            raise RequestError(msg)
        model = self._local(kwargs)
        pieces = model.stream(to_messages(messages), cancel=cancel, **parameters)
        return (_chunk(piece, model.name, logprobs=logprobs) for piece in pieces)

    def _parameters(self, stop: list[str] | None, kwargs: dict[str, Any]) -> tuple[int, bool, dict[str, Any]]:
        """Number of answers, whether log-probabilities are wanted, and the model's own parameters."""
        unknown = sorted(set(kwargs) - set(CALL_KWARGS) - set(IGNORED_KWARGS))
        if unknown:
            msg = f"{', '.join(unknown)}: not known to ChatLocal, which takes stop, {', '.join(CALL_KWARGS)}; leave it out"
            raise RequestError(msg)
        given = {key: value for key, value in kwargs.items() if value is not None}
        parameters = {
            key: given.get(key, getattr(self, key)) for key in ("temperature", "max_tokens", "top_p", "seed")
        }
        parameters["stop"] = (stop if stop is not None else self.stop) or ()
        logprobs = bool(given.get("logprobs", self.logprobs))
        parameters["top_logprobs"] = (given.get("top_logprobs", self.top_logprobs) or 0) if logprobs else 0
        return given.get("n", 1), logprobs, parameters

    def loaded(self) -> LocalModel:
        """The model itself, loaded if it is not yet; shared by everyone who loaded it."""
        return self._local({})

    def _local(self, kwargs: dict[str, Any]) -> LocalModel:
        from confroute.models.local import LocalModel

        # Looked up at every call, so that copies and pickles of this object hold no weights.
        source = kwargs.get("model") or self.model
        return LocalModel.load(source, dtype=self.dtype, context_window=self.context_window)


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """LangChain's messages as text.

    Raises
    ------
    RequestError
        A role that is not known, or content that is not text.
    """
    return [Message(role=_role(message), text=_text(message)) for message in messages]


def _role(message: BaseMessage) -> Role:
    name = getattr(message, "role", message.type)
    if not is_role(name):
        msg = f"message role {name!r}: expected one of system, user, assistant, tool"
        raise RequestError(msg)
    return role_of(name)


def _text(message: BaseMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    # A reasoning block is another model's aside, not part of the conversation.
    kinds = {block.get("type", "unknown") for block in blocks if isinstance(block, dict)} - _READ
    if kinds:
        msg = f"content of type {', '.join(sorted(kinds))}: ChatLocal takes text only; send it to a model that can, or leave it out"
        raise RequestError(msg)
    text = "".join(block if isinstance(block, str) else block.get("text", "") for block in blocks)
    calls = (
        [f"{call['name']}({call['args']})" for call in message.tool_calls]
        if isinstance(message, AIMessage)
        else []
    )
    return "\n".join(part for part in (text, *calls) if part)


def _generation(answer: Generation, *, logprobs: bool) -> ChatGeneration:
    """An answer as LangChain's."""
    metadata: dict[str, Any] = {
        "model_name": answer.model,
        "model_provider": PROVIDER,
        "finish_reason": answer.finish,
    }
    if logprobs:
        metadata["logprobs"] = {
            "content": logprobs_content(answer.tokens or (), answer.logprobs or (), answer.top_logprobs)
        }
    message = AIMessage(
        content=answer.text,
        response_metadata=metadata,
        usage_metadata=None if answer.usage is None else _usage(answer.usage),
    )
    return ChatGeneration(message=message, generation_info={"finish_reason": answer.finish})


def _chunk(piece: Piece, name: str, *, logprobs: bool) -> ChatGenerationChunk:
    """A piece of an answer as LangChain's; names and usage on the last only."""
    metadata: dict[str, Any] = {}
    if logprobs:
        metadata["logprobs"] = {"content": logprobs_content(piece.tokens, piece.logprobs, piece.top_logprobs)}
    if piece.finish is None:
        return ChatGenerationChunk(message=AIMessageChunk(content=piece.text, response_metadata=metadata))
    # On one chunk only: equal strings would be joined when chunks are added up.
    metadata |= {"model_name": name, "model_provider": PROVIDER, "finish_reason": piece.finish}
    message = AIMessageChunk(
        content=piece.text,
        response_metadata=metadata,
        usage_metadata=_usage(piece.usage or Usage()),
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, total_tokens=usage.total_tokens
    )
