"""Models that are asked outside a router: to record, to label, to judge. One interface for all kinds of them.

`speaker` makes one from what users name on a command line ("local:smollm2-135m", "openai:gpt-4o-mini",
"my_package.models:judge") or hold in their hands (a chat model of either host, a local model, a function).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from confroute.errors import PolicyError
from confroute.models.named import EXPECTED, OLLAMA_URL, imported, meant
from confroute.models.openai import OpenAISpeaker
from confroute.types import Generation, Message

_HOSTS = {"langchain_core": "langchain_confroute.speaking", "llama_index": "llamaindex_confroute.speaking"}


@runtime_checkable
class Speaker(Protocol):
    """A model that answers a conversation, once or several times.

    Attributes
    ----------
    name : str
        The model's own name, for caches and records.
    remote : bool
        Whether text leaves this machine: private text is never sent to a remote one.
    """

    @property
    def name(self) -> str:
        """The model's own name."""
        ...

    @property
    def remote(self) -> bool:
        """Whether text leaves this machine."""
        ...

    def say(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """`n` answers; fewer are an error of the caller's to find. A seed is used where the model has one."""
        ...

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
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSpeaker:
    """A transformers model in this process, loaded at its first answer.

    Parameters
    ----------
    model : str
        A catalogue name, a file or a folder.
    dtype : str, optional
        Of the weights: as `LocalModel.load`; by default float32, and "auto" for catalogue models over 1 B.
    """

    model: str
    dtype: str | None = None
    remote: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.model

    def say(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """`n` answers of one prompt, which is read once; equal seeds give equal answers."""
        from confroute.models.local import LocalModel

        model = LocalModel.load(self.model, dtype=self.dtype or local_dtype(self.model))
        return model.generate(messages, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)

    async def asay(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """Async form of `say`, off the event loop."""
        import asyncio

        return await asyncio.to_thread(
            self.say, messages, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed
        )


def local_dtype(model: str) -> str:
    """What suits a model of the catalogue: for one that is large for two cores, what this processor is fast in."""
    return "auto" if model.startswith("qwen") else "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpeaker:
    """A function of the conversation, sync or async, that returns a text or a `Generation`.

    Parameters
    ----------
    function : callable
        `function(messages)`; a parameter named "temperature", "max_tokens" or "seed" is filled, and a seed differs from
        answer to answer.
    name : str
    remote : bool
        True unless you know that the function sends nothing anywhere.
    """

    function: Callable[..., Any]
    name: str
    remote: bool = True

    def _settings(self, temperature: float, max_tokens: int, seed: int | None) -> dict[str, Any]:
        known = inspect.signature(self.function).parameters
        given = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        return {key: value for key, value in given.items() if key in known}

    def _generation(self, said: object) -> Generation:
        if isinstance(said, Generation):
            return said
        if isinstance(said, str):
            return Generation(text=said, model=self.name)
        msg = f"{self.name} returned a {type(said).__name__}: expected a str or a Generation"
        raise PolicyError(msg)

    def say(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """Call the function `n` times."""
        if inspect.iscoroutinefunction(self.function):
            import asyncio

            return asyncio.run(
                self.asay(messages, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)
            )
        return tuple(
            self._generation(
                self.function(tuple(messages), **self._settings(temperature, max_tokens, _next(seed, at)))
            )
            for at in range(n)
        )

    async def asay(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """Await an async function; a sync one runs in a thread."""
        import asyncio

        if not inspect.iscoroutinefunction(self.function):
            return await asyncio.to_thread(
                self.say, messages, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed
            )
        said = []
        for at in range(n):
            settings = self._settings(temperature, max_tokens, _next(seed, at))
            said.append(self._generation(await self.function(tuple(messages), **settings)))
        return tuple(said)


def _next(seed: int | None, at: int) -> int | None:
    """With one seed for all samples, they would be one sample."""
    return None if seed is None else seed + at


def speaker(model: object, *, base_url: str | None = None, logprobs: bool = True) -> Speaker:
    """Make a `Speaker` of a name or an object.

    Parameters
    ----------
    model : str or object
        "local:NAME", "openai:MODEL", "ollama:MODEL", "MODULE:OBJECT" (imported; whatever the object is, it is taken as
        below); a `Speaker`, which is returned as it is; a LangChain chat model; a LlamaIndex LLM; a `LocalModel`; a
        callable.
    base_url : str, optional
        Of an OpenAI-compatible server, for "openai:MODEL"; for "ollama:MODEL" it ends in /v1 and is Ollama's own port
        where not given.
    logprobs : bool
        Whether "openai:MODEL" is asked for log-probabilities.

    Raises
    ------
    PolicyError
        None of these, a module or object that is not there, or a base URL where nothing takes one.

    Examples
    --------
    >>> speaker("local:smollm2-135m").remote, speaker(lambda messages: "yes").say(())[0].text
    (False, 'yes')
    """
    if isinstance(model, str):
        return _named(model, base_url, logprobs)
    if base_url is not None:
        msg = f"base_url={base_url!r} is for an 'openai:MODEL' name: set the URL on the {type(model).__name__} itself"
        raise PolicyError(msg)
    if isinstance(model, Speaker):
        return model
    for base in type(model).__mro__:
        adapter = _HOSTS.get(base.__module__.partition(".")[0])
        if adapter is not None:
            # The core imports no host: the object's own host is here already.
            made: Speaker = importlib.import_module(adapter).speaker(model)
            return made
    if hasattr(model, "generate") and hasattr(model, "count_tokens"):
        return FunctionSpeaker(
            function=_LocalCall(model), name=str(getattr(model, "name", "local")), remote=False
        )
    if callable(model):
        return FunctionSpeaker(function=model, name=getattr(model, "__qualname__", type(model).__name__))
    msg = f"a {type(model).__name__} is no model: expected a name, a chat model of LangChain or LlamaIndex, or a function"
    raise PolicyError(msg)


@dataclass(frozen=True, slots=True)
class _LocalCall:
    """One answer of a `LocalModel` that is loaded already."""

    model: Any

    def __call__(
        self, messages: tuple[Message, ...], temperature: float, max_tokens: int, seed: int | None
    ) -> Generation:
        (answer,) = self.model.generate(messages, temperature=temperature, max_tokens=max_tokens, seed=seed)
        said: Generation = answer
        return said


def _named(spec: str, base_url: str | None, logprobs: bool) -> Speaker:
    kind, _, name = spec.partition(":")
    if not kind or not name:
        msg = f"model {spec!r}: expected {EXPECTED}{meant(spec)}"
        raise PolicyError(msg)
    if kind in ("openai", "ollama"):
        url = base_url or (OLLAMA_URL if kind == "ollama" else None)
        return OpenAISpeaker(model=name, base_url=url, logprobs=logprobs)
    if base_url is not None:
        msg = f"model {spec!r} takes no base URL: only openai:MODEL and ollama:MODEL do"
        raise PolicyError(msg)
    return LocalSpeaker(model=name) if kind == "local" else _imported(spec)


def _imported(spec: str) -> Speaker:
    found = imported(spec)
    if isinstance(found, str):
        msg = f"model {spec!r} is a string: expected a chat model, a Speaker or a function"
        raise PolicyError(msg)
    return speaker(found)
