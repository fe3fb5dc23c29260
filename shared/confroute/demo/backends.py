"""Make the models of both hosts from one name: `local:NAME`, `openai:MODEL`, `ollama:MODEL` or any `init_chat_model` string."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confroute.errors import MissingExtraError, PolicyError
from confroute.models.local import LocalTextModel
from confroute.models.resolution import resolve, split_name
from confroute.models.text_model import TextModel

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable
    from llama_index.core.llms import LLM


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One model by name, for LangChain, for LlamaIndex or without a host.

    Attributes
    ----------
    spec : str
        "PROVIDER:MODEL".
    base_url : str or None
        URL of an OpenAI-compatible or Ollama server.
    max_tokens : int
        Length of the longest answer.
    dtype : str or None
        Type of a local model's weights; None for the one that suits the model's size.

    Raises
    ------
    PolicyError
        A name without a provider, or a base URL for a model in this process.
    """

    spec: str
    base_url: str | None = None
    max_tokens: int = 32
    dtype: str | None = None

    def __post_init__(self) -> None:
        if split_name(self.spec)[0] == "local" and self.base_url:
            msg = f"model {self.spec!r} runs in this process: a base URL is for openai: and ollama: models"
            raise PolicyError(msg)

    @property
    def provider(self) -> str:
        """The part of the name before the colon."""
        return self.spec.partition(":")[0]

    @property
    def model(self) -> str:
        """The part of the name after the colon."""
        return self.spec.partition(":")[2]

    def pull(self) -> None:
        """Fetch the weights of a local model, unless they are on this machine."""
        from confroute.models.catalog import catalog_entries
        from confroute.models.download import pull

        if self.provider == "local" and self.model in {entry.name for entry in catalog_entries()}:
            pull(self.model)

    def load(self) -> None:
        """Read the weights of a local model into this process, where all forms of it share them."""
        if self.provider == "local":
            LocalTextModel(model=self.model, dtype=self.dtype).loaded()

    def plain(self) -> TextModel:
        """Make the model without a host."""
        return resolve(self.spec, base_url=self.base_url, dtype=self.dtype, max_tokens=self.max_tokens)

    def langchain(self) -> BaseChatModel:
        """Make the model as a LangChain chat model."""
        if self.provider == "local":
            from langchain_confroute import ChatLocal

            return ChatLocal(model=self.model, max_tokens=self.max_tokens, dtype=self.dtype)
        from langchain_confroute.text_model import chat_named

        chat = chat_named(self.spec, base_url=self.base_url, max_tokens=self.max_tokens)
        if chat is None:
            msg = f"model {self.spec!r}: LangChain's init_chat_model knows no provider {self.provider!r}"
            raise PolicyError(msg)
        return chat

    def llamaindex(self) -> LLM:
        """Make the model as a LlamaIndex LLM."""
        if self.provider == "local":
            from llamaindex_confroute import LocalLLM

            return LocalLLM(model=self.model, max_tokens=self.max_tokens, dtype=self.dtype)
        if self.provider == "ollama":
            return self._ollama()
        if self.provider != "openai":
            msg = f"{self.provider!r} has no LlamaIndex form in the demo: use local:, openai: or ollama:"
            raise PolicyError(msg)
        return self._openai_like()

    def _ollama(self) -> LLM:
        try:
            from llama_index.llms.ollama import Ollama  # pyright: ignore[reportMissingImports]  user's choice
        except ImportError as error:
            package = "llama-index-llms-ollama"
            raise MissingExtraError(
                package=package, needed_for=f"the LlamaIndex half of {self.spec!r}"
            ) from error
        url: dict[str, Any] = {"base_url": self.base_url} if self.base_url else {}
        llm: LLM = Ollama(model=self.model, additional_kwargs={"num_predict": self.max_tokens}, **url)
        return llm

    def _openai_like(self) -> LLM:
        try:
            from llama_index.llms.openai_like import OpenAILike
        except ImportError as error:
            package = "llama-index-llms-openai-like"
            raise MissingExtraError(
                package=package, needed_for=f"the LlamaIndex half of {self.spec!r}"
            ) from error
        url: dict[str, Any] = {"api_base": self.base_url} if self.base_url else {}
        llm: LLM = OpenAILike(
            model=self.model, is_chat_model=True, max_tokens=self.max_tokens, temperature=0, **url
        )
        return llm


def switched_off() -> Runnable[Any, Any]:
    """Make a cloud that is down: each call connects to a port of this machine on which nothing listens."""
    from langchain_core.runnables import RunnableLambda

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()

    def call(_messages: object) -> object:
        with socket.create_connection(address, timeout=2) as connection:
            return connection.recv(0)

    return RunnableLambda(call, name="switched-off")
