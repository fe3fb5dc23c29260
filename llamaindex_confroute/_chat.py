"""Chat, completion and prediction: each call goes whole to one child after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
)
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen

from confroute.errors import RequestError
from llamaindex_confroute import _chunks
from llamaindex_confroute._base import RouterBase
from llamaindex_confroute._compat import unspanned
from llamaindex_confroute._messages import checked
from llamaindex_confroute._overrides import overrides
from llamaindex_confroute._prompts import asked, asking, parts_of, parts_of_text
from llamaindex_confroute._routing import Routing
from llamaindex_confroute._work import ChatWork


class ChatRouter(RouterBase):
    """`chat`, `complete`, `predict`, their streams and their async forms; see `ConfRouteLLM`."""

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        routing, work = self._chat_work(messages, kwargs)
        return _chunks.chat_response(routing.run(work))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        routing, work = self._chat_work(messages, kwargs)
        return _chunks.chat_response(await routing.arun(work))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation in chunks; nothing of a rejected draft is ever among them."""
        routing, work = self._chat_work(messages, kwargs)
        return _chunks.chat_chunks(routing.stream(work))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation in chunks; nothing of a rejected draft is ever among them."""
        routing, work = self._chat_work(messages, kwargs)
        return _chunks.achat_chunks(routing.astream(work))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a text, by the child's `chat`: its `complete` loses the log-probabilities."""
        with asking(parts_of_text(prompt)):
            return _chunks.completion(self.chat(_prompt(prompt), **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a text, by the child's `chat`: its `complete` loses the log-probabilities."""
        with asking(parts_of_text(prompt)):
            return _chunks.completion(await self.achat(_prompt(prompt), **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a text in chunks."""
        with asking(parts_of_text(prompt)):
            return _chunks.completions(self.stream_chat(_prompt(prompt), **kwargs))

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a text in chunks."""
        with asking(parts_of_text(prompt)):
            return _chunks.acompletions(await self.astream_chat(_prompt(prompt), **kwargs))

    @unspanned
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill a template and answer it; the policy sees question, context and existing answer apart."""
        with asking(parts_of(prompt, prompt_args)):
            return super().predict(prompt, **prompt_args)

    @unspanned
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Async form of `predict`."""
        with asking(parts_of(prompt, prompt_args)):
            return await super().apredict(prompt, **prompt_args)

    @unspanned
    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """`predict` token by token."""
        with asking(parts_of(prompt, prompt_args)):
            return super().stream(prompt, **prompt_args)

    @unspanned
    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """`predict` token by token."""
        with asking(parts_of(prompt, prompt_args)):
            return await super().astream(prompt, **prompt_args)

    def _chat_work(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> tuple[Routing, ChatWork]:
        given = overrides(kwargs)
        work = ChatWork(messages=checked(messages), kwargs=given.kwargs)
        return self._routing(work, given, asked()), work


def _prompt(prompt: object) -> list[ChatMessage]:
    if not isinstance(prompt, str):
        msg = f"the prompt is a {type(prompt).__name__}: expected a string; use chat() for messages"
        raise RequestError(msg)
    return [ChatMessage(role=MessageRole.USER, content=prompt)]
