"""Models that refuse requests for log-probabilities: asked again with less of them, and not asked for them any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TypeVar

from llama_index.core.llms.llm import LLM

from confroute.models.resilience import rejects_logprobs
from llamaindex_confroute._models import Prepared

C = TypeVar("C")
T = TypeVar("T")
# What is left out first, second and so on.
_LESS = (("top_logprobs",), ("top_logprobs", "logprobs"))


class Refusals:
    """What each model refused so far; without this such an edge would fail every time, and the cloud answer every call."""

    def __init__(self) -> None:
        # By id, with the model itself so that the id stays its own.
        self._refused: dict[int, tuple[LLM, int]] = {}
        self._following: dict[int, tuple[LLM, LLM]] = {}

    def call(self, make: Callable[[Prepared], T], one: Prepared) -> T:
        """Make a call; if the model refuses it for its log-probabilities, once more without."""
        while True:
            asked = self._eased(one)
            try:
                return make(asked)
            except Exception as error:
                if not self._noted(asked, error):
                    raise

    async def acall(self, make: Callable[[Prepared], Awaitable[T]], one: Prepared) -> T:
        """Async form of `call`."""
        while True:
            asked = self._eased(one)
            try:
                return await make(asked)
            except Exception as error:
                if not self._noted(asked, error):
                    raise

    def stream(
        self, make: Callable[[Prepared], Generator[C, None, None]], one: Prepared
    ) -> Generator[C, None, None]:
        """Pass on a stream; as in `call` if it is refused before its first item."""
        begun = ended = False
        while not ended:
            asked = self._eased(one)
            try:
                with closing(make(asked)) as items:
                    for item in items:
                        begun = True
                        yield item
                ended = True
            except Exception as error:
                if begun or not self._noted(asked, error):
                    raise

    async def astream(
        self, make: Callable[[Prepared], AsyncGenerator[C, None]], one: Prepared
    ) -> AsyncGenerator[C, None]:
        """Async form of `stream`."""
        begun = ended = False
        while not ended:
            asked = self._eased(one)
            try:
                async with aclosing(make(asked)) as items:
                    async for item in items:
                        begun = True
                        yield item
                ended = True
            except Exception as error:
                if begun or not self._noted(asked, error):
                    raise

    def _eased(self, one: Prepared) -> Prepared:
        if "top_logprobs" in one.kwargs and getattr(one.llm, "logprobs", None) is True:
            one = replace(one, llm=self._follower(one.llm))
        known, refused = self._refused.get(id(one.llm), (one.llm, 0))
        if not refused or known is not one.llm:
            return one
        left_out = _LESS[refused - 1]
        return replace(
            one, kwargs={name: value for name, value in one.kwargs.items() if name not in left_out}
        )

    def _follower(self, llm: LLM) -> LLM:
        """A copy that follows its call, where the model's own `logprobs=True` would send its own number of alternatives.

        Made once a model: each copy may open connections of its own.
        """
        known, copy = self._following.get(id(llm), (None, llm))
        if known is not llm:
            copy = llm.model_copy(update={"logprobs": None})
            self._following[id(llm)] = (llm, copy)
        return copy

    def _noted(self, asked: Prepared, error: Exception) -> bool:
        """Whether `error` was such a refusal, and there is less to ask for."""
        wanted = [at for at, names in enumerate(_LESS, 1) if names[-1] in asked.kwargs]
        if not wanted or not rejects_logprobs(error):
            return False
        self._refused[id(asked.llm)] = (asked.llm, wanted[0])
        return True
