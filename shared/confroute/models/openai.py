"""A model behind an OpenAI-compatible API, asked through OpenAI's own client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from confroute.errors import MissingExtraError, ModelError
from confroute.types import Finish, Generation, Message, Usage

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISpeaker:
    """A chat model of OpenAI, or of any server that speaks its protocol (vLLM, llama.cpp, Ollama).

    Parameters
    ----------
    model : str
    base_url : str, optional
        The server; OpenAI's own, or that in `OPENAI_BASE_URL`, where not given. The key is read from `OPENAI_API_KEY`;
        a server of your own needs none.
    timeout_s : float
        Of one request, in seconds.
    logprobs : bool
        Ask for log-probabilities; some models refuse requests that do.

    Notes
    -----
    No seed is sent: servers that give all samples of a request one seed would return one sample n times.
    """

    model: str
    base_url: str | None = None
    timeout_s: float = 120.0
    logprobs: bool = True

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.model

    @property
    def remote(self) -> bool:
        """False only for a server on this machine's loopback."""
        return urlsplit(self.base_url or "").hostname not in _LOOPBACK

    def say(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """`n` answers with their log-probabilities; a server that returns fewer in one request is asked again.

        Raises
        ------
        MissingExtraError
            The `openai` package is not installed.
        ModelError
            No key, or an empty response. Errors of the API are passed on as OpenAI's.
        """
        client = _client(self.base_url, self.timeout_s)
        said: list[Generation] = []
        while len(said) < n:
            body = self._body(messages, n - len(said), temperature, max_tokens)
            said += _answers(client.chat.completions.create(**body), self.model)
        return tuple(said[:n])

    async def asay(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """Async form of `say`."""
        openai = _package()
        said: list[Generation] = []
        # A client belongs to the loop that made it, which may not outlive this call.
        async with _made(openai.AsyncOpenAI, self.base_url, self.timeout_s) as client:
            while len(said) < n:
                body = self._body(messages, n - len(said), temperature, max_tokens)
                said += _answers(await client.chat.completions.create(**body), self.model)
        return tuple(said[:n])

    def _body(
        self, messages: Sequence[Message], n: int, temperature: float, max_tokens: int
    ) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "temperature": temperature,
            **({"logprobs": True} if self.logprobs else {}),
            # OpenAI's newer models know only the second name, many other servers only the first.
            "max_tokens" if self.base_url else "max_completion_tokens": max_tokens,
            **({"n": n} if n > 1 else {}),
        }


def _package() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError(extra="openai", needed_for="a model named 'openai:MODEL'") from error
    return openai


def _made(kind: Any, base_url: str | None, timeout_s: float) -> Any:
    import os

    # Servers of one's own want no key, the client does.
    key = os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
    try:
        # Retries are the caller's: its limits say how many.
        return kind(base_url=base_url, api_key=key, timeout=timeout_s, max_retries=0)
    except _package().OpenAIError as error:
        msg = f"no OpenAI client can be made: {error}; set OPENAI_API_KEY, or give a base URL"
        raise ModelError(msg) from error


@lru_cache(maxsize=8)
def _client(base_url: str | None, timeout_s: float) -> OpenAI:
    """One client a server: it keeps connections open and may be used by several threads."""
    client: OpenAI = _made(_package().OpenAI, base_url, timeout_s)
    return client


def _answers(completion: ChatCompletion, model: str) -> list[Generation]:
    if not completion.choices:
        msg = f"{model} returned no choices"
        raise ModelError(msg)
    used = completion.usage
    usage = None
    if used is not None:
        usage = Usage(input_tokens=used.prompt_tokens, output_tokens=used.completion_tokens)
    return [
        Generation(
            text=choice.message.content or "",
            logprobs=_logprobs(choice),
            tokens=_tokens(choice),
            # The server counts all samples together.
            usage=usage if at == 0 else None,
            finish=_FINISH.get(str(choice.finish_reason), "unknown"),
            model=completion.model or model,
        )
        for at, choice in enumerate(completion.choices)
    ]


def _logprobs(choice: Any) -> tuple[float, ...] | None:
    """None also where one token lacks its number, as JSON writes minus infinity: the rest is not the whole answer."""
    content = choice.logprobs.content if choice.logprobs else None
    values = tuple(token.logprob for token in content or ())
    return None if not values or None in values else values


def _tokens(choice: Any) -> tuple[str, ...] | None:
    content = choice.logprobs.content if choice.logprobs else None
    return tuple(token.token for token in content) if content else None
