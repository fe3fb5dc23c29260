"""A transformers model in this process, which answers with the log-probability of every token.

::

    model = LocalModel.load("qwen2.5-coder-0.5b")
    (answer,) = model.generate([Message(role="user", text="Name a colour.")], max_tokens=8)
    answer.text, answer.logprobs

torch and transformers (`pip install 'confroute[local]'`) are needed only when a model is loaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from confroute.concurrency import in_thread, stream_in_thread
from confroute.errors import ModelError, RequestError
from confroute.models import prompts
from confroute.models.loading import Weights, load_causal
from confroute.models.sampling import GrowingAnswer, SamplingPlan, check, generations_of, piece_of, steps
from confroute.models.text_model import MAX_TOKENS, Piece, Settings
from confroute.types import Generation, Message, Usage

if TYPE_CHECKING:
    from confroute.models.decoding import Decoder

__all__ = ["LocalModel", "LocalTextModel", "Piece"]


class LocalModel:
    """A causal language model whose weights are in this process; create one with `load`.

    Safe to call from several threads: each call has its own state and holds `lock` for single forward passes only.
    """

    def __init__(self, *, weights: Weights, name: str, context_window: int) -> None:
        self._weights, self._name, self._window = weights, name, context_window
        self._ends = prompts.end_ids(weights.network, weights.tokenizer)
        self._decode = prompts.decoder_of(weights.tokenizer)

    @classmethod
    def load(
        cls, source: str | Path, *, dtype: str | None = None, context_window: int | None = None
    ) -> LocalModel:
        """Load a model; the same source and dtype share one copy of the weights per process.

        Parameters
        ----------
        source : str or Path
            A catalogue name, a GGUF file, a folder that `AutoModelForCausalLM` reads, or a hub name: "org/name" or
            "org/name:file.gguf". Since reading a GGUF file takes up to a minute, its dequantised weights are stored
            beside it as safetensors (2 or 4 bytes per parameter), provided the disk has twice as much free space.
        dtype : {"float32", "bfloat16", "float16", "auto"}, optional
            Type of the weights; by default "auto" for a model of more than 300 MB on disk or from the hub, else float32.
            bfloat16 doubles the speed of models over about 1 B parameters on CPUs with
            avx512_bf16, is many times slower on others, and reduces log-probabilities to two or three digits. "auto" is
            bfloat16 where the CPU supports it, else float32.
        context_window : int, optional
            Most tokens of prompt and answer together; by default, and at most, the model's own limit.

        Raises
        ------
        UnknownModelError
            The name is neither in the catalogue, nor a path, nor a hub name.
        ModelError
            The source is damaged, incomplete, not a model or without tokenizer; the dtype is unknown; the window is too
            large.
        MissingExtraError
            torch or transformers is not installed.
        """
        name, weights = load_causal(source, dtype)
        own = _own_window(weights.network.config)
        if context_window is not None and not 2 <= context_window <= (own or context_window):
            msg = f"context_window={context_window}: expected 2 to {own} tokens for {name}; leave it out for the model's own"
            raise ModelError(msg)
        window = context_window or own
        if window is None:
            msg = f"{name}: its config.json names no context window; pass context_window= in tokens"
            raise ModelError(msg)
        return cls(weights=weights, name=name, context_window=window)

    def __repr__(self) -> str:
        return f"LocalModel({self._name!r}, context_window={self._window})"

    @property
    def name(self) -> str:
        """The source's name: catalogue or hub name, file or folder name."""
        return self._name

    @property
    def context_window(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._window

    @property
    def weights(self) -> Weights:
        """Network, tokenizer and lock in one object."""
        return self._weights

    @property
    def network(self) -> Any:
        """The transformers model, shared by all who loaded it: hold `lock` before hooking or changing it."""
        return self._weights.network

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, also shared."""
        return self._weights.tokenizer

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The lock that is held during each forward pass on these weights; not reentrant."""
        return self._weights.lock

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the tokens of the prompt that `generate` would use, chat template included.

        Raises
        ------
        RequestError
            There are no messages, or the model's chat template refuses the conversation.
        """
        return len(prompts.prompt_ids(self.tokenizer, messages))

    def generate(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int = 0,
        cancel: threading.Event | None = None,
    ) -> tuple[Generation, ...]:
        """Answer `n` times; the prompt is processed once for all of them.

        Parameters
        ----------
        messages : sequence of Message
            Oldest first. Models without a chat template get one "role: text" line per message and a last line
            "assistant:". A "tool" turn that the template does not support is sent as a user turn.
        n : int
            Answers to draw; more than one needs a temperature above 0.
        max_tokens : int
            Most tokens of an answer, at least 1; reduced to what the context window leaves.
        temperature : float
            0 takes the likeliest token at each step; 1 draws from the model's own distribution.
        top_p : float
            In (0, 1]: draw only from the likeliest tokens that together have this probability.
        seed : int, optional
            The same seed gives the same answers. The global random state is left alone.
        stop : sequence of str
            The answer ends before the first of these strings.
        top_logprobs : int
            Number of likeliest tokens to return at each position; 0 for none.
        cancel : threading.Event, optional
            Once it is set, the call returns within one token, with the answer so far and finish "cancelled".

        Returns
        -------
        tuple of Generation
            `tokens` join to `text`; `logprobs` and `top_logprobs` match them one to one. The end-of-turn token and text
            after a stop string are left out; a token that a stop string divides keeps the part before it, with the
            log-probability of the whole token. `logprobs` are those of the model's own distribution, before temperature
            and top_p. `usage` counts the prompt in the first answer only, and an answer's tokens with its end-of-turn
            token. `raw` holds the token ids.

        Raises
        ------
        RequestError
            There are no messages, the prompt is longer than `context_window` - 1 tokens, or a parameter is out of range.
        """
        started = time.perf_counter()
        prompt, plan = self._prepare(
            messages,
            stop,
            SamplingPlan(
                n=n,
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                top_logprobs=top_logprobs,
            ),
        )
        answers = self._empty_answers(n, stop)
        for _ in steps(self._decoder(prompt, plan, cancel), answers, plan, self._ends):
            pass
        latency_s = time.perf_counter() - started
        return generations_of(answers, model=self._name, prompt_tokens=len(prompt), latency_s=latency_s)

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int = 0,
        cancel: threading.Event | None = None,
    ) -> Iterator[Piece]:
        """Answer once, piece by piece; joined, the pieces are the answer of `generate`.

        Text that may turn out to begin a stop string is withheld. Closing the iterator ends decoding at once.
        Parameters and errors are those of `generate`; errors are raised by the call, before the first piece.

        Yields
        ------
        Piece
            The last one has `finish` and `usage`.
        """
        prompt, plan = self._prepare(
            messages,
            stop,
            SamplingPlan(
                n=1,
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                top_logprobs=top_logprobs,
            ),
        )
        return self._pieces(prompt, plan, self._empty_answers(1, stop), cancel)

    def _pieces(
        self,
        prompt: list[int],
        plan: SamplingPlan,
        answers: list[GrowingAnswer],
        cancel: threading.Event | None,
    ) -> Iterator[Piece]:
        (answer,) = answers
        sent = 0
        for _ in steps(self._decoder(prompt, plan, cancel), answers, plan, self._ends):
            ready = answer.ready()
            if ready > sent and answer.finish is None:
                yield piece_of(answer, sent, ready)
                sent = ready
        usage = Usage(input_tokens=len(prompt), output_tokens=answer.billed)
        yield piece_of(answer, sent, len(answer.tokens), finish=answer.finish, usage=usage)

    def logprobs_of(self, messages: Sequence[Message], answer: str) -> tuple[float, ...]:
        """Natural log-probability of each token of `answer`, as if the model had given it.

        Parameters
        ----------
        messages : sequence of Message
        answer : str
            Tokenized as it is, without an end token.

        Raises
        ------
        RequestError
            Prompt and answer together exceed the context window, or the chat template refuses the conversation.
        """
        from confroute.models.decoding import score

        prompt = prompts.prompt_ids(self.tokenizer, messages)
        answer_ids = prompts.encode(self.tokenizer, answer, special=False)
        if len(prompt) + len(answer_ids) > self._window:
            msg = f"prompt ({len(prompt)} tokens) and answer ({len(answer_ids)}) exceed the context window of {self._window}; shorten them"
            raise RequestError(msg)
        return tuple(score(self._weights, prompt, answer_ids))

    def _empty_answers(self, n: int, stop: Sequence[str]) -> list[GrowingAnswer]:
        return [GrowingAnswer(decode=self._decode, stop=tuple(stop)) for _ in range(n)]

    def _decoder(self, prompt: list[int], plan: SamplingPlan, cancel: threading.Event | None) -> Decoder:
        from confroute.models.decoding import Decoder

        return Decoder(self._weights, prompt, plan, cancel)

    def _prepare(
        self, messages: Sequence[Message], stop: Sequence[str], plan: SamplingPlan
    ) -> tuple[list[int], SamplingPlan]:
        check(plan, stop)
        prompt = prompts.prompt_ids(self.tokenizer, messages)
        if len(prompt) > self._window - 1:
            msg = (
                f"the prompt has {len(prompt)} tokens: expected at most {self._window - 1} for {self._name} "
                f"(context window {self._window}, one token left for the answer); shorten it or use a model with a larger window"
            )
            raise RequestError(msg)
        return prompt, replace(plan, max_tokens=min(plan.max_tokens, self._window - len(prompt)))


def _own_window(config: Any) -> int | None:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    sizes = (
        getattr(text, key, None) for key in ("max_position_embeddings", "n_positions", "max_sequence_length")
    )
    return next((size for size in sizes if isinstance(size, int)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTextModel:
    """A transformers model in this process, loaded at its first answer.

    Parameters
    ----------
    model : str, Path or LocalModel
        A catalogue name, a file, a folder, or a model that is loaded already.
    dtype : str, optional
        Of the weights: as `LocalModel.load`.
    temperature : float
        Of answers whose caller says none; 0 takes the likeliest token each time.
    max_tokens : int
        Longest answer where the caller says none.
    context_window : int, optional
        Tokens that prompt and answer may take together; by default the model's own.
    """

    model: str | Path | LocalModel
    dtype: str | None = None
    temperature: float = 0.0
    max_tokens: int = MAX_TOKENS
    context_window: int | None = None
    remote: bool = field(default=False, init=False)
    takes: ClassVar[frozenset[str]] = frozenset({"stop"})

    @property
    def name(self) -> str:
        """The model's own name."""
        return str(self.model) if isinstance(self.model, (str, Path)) else self.model.name

    def loaded(self) -> LocalModel:
        """The model itself, loaded if it is not yet; shared by everyone who loaded it."""
        if not isinstance(self.model, (str, Path)):
            return self.model
        # Looked up at every call, so that copies and pickles of this object hold no weights.
        return LocalModel.load(self.model, dtype=self.dtype, context_window=self.context_window)

    def generate(self, messages: Sequence[Message], *, n: int = 1, **settings: Any) -> tuple[Generation, ...]:
        """`n` answers of one prompt, which is read once; equal seeds give equal answers."""
        return self.loaded().generate(messages, n=n, **self._parameters(settings))

    async def agenerate(
        self, messages: Sequence[Message], *, n: int = 1, **settings: Any
    ) -> tuple[Generation, ...]:
        """Async form of `generate`, off the event loop; cancelling it stops the decoding."""
        parameters = self._parameters(settings)
        return await in_thread(
            lambda cancel: self.loaded().generate(messages, n=n, cancel=cancel, **parameters)
        )

    def stream(self, messages: Sequence[Message], **settings: Any) -> Generator[Piece, None, None]:
        """Answer once, piece by piece."""
        yield from self.loaded().stream(messages, **self._parameters(settings))

    async def astream(self, messages: Sequence[Message], **settings: Any) -> AsyncGenerator[Piece, None]:
        """Async form of `stream`, off the event loop."""
        parameters = self._parameters(settings)
        pieces = stream_in_thread(lambda cancel: self.loaded().stream(messages, cancel=cancel, **parameters))
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    def _parameters(self, settings: dict[str, Any]) -> dict[str, Any]:
        asked = Settings(**settings)
        return {
            "temperature": self.temperature if asked.temperature is None else asked.temperature,
            "max_tokens": asked.max_tokens or self.max_tokens,
            "seed": asked.seed,
            "stop": asked.stop,
            "top_logprobs": asked.top_logprobs if asked.logprobs else 0,
        }
