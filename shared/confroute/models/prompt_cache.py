"""A prompt that was read once, for all that is asked about it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers.cache_utils import DynamicCache

    from confroute.models.loading import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a model knows behind a prompt.

    Attributes
    ----------
    cache : DynamicCache
        One row, the whole prompt. Never handed out: see `copied`.
    logits : tensor of float32, shape (vocabulary,)
        Of the answer's first token.
    states : tensor of float32, shape (layers + 1, width)
        Of the last token: embeddings first, the last one behind the final norm.
    """

    cache: DynamicCache
    logits: torch.Tensor
    states: torch.Tensor

    def copied(self, *, less: int = 0) -> DynamicCache:
        """A cache of one's own, without the last `less` tokens."""
        own = copy.deepcopy(self.cache)
        if less:
            own.crop(-less)
        return own


@dataclass(slots=True)
class _Kept:
    """The last prompt of each model; its owner reads one prompt at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    last: dict[int, tuple[Any, tuple[int, ...], Reading]] = field(default_factory=dict)


_kept: ContextVar[_Kept | None] = ContextVar("confroute_kept_prompts", default=None)


@contextmanager
def prompt_caching() -> Iterator[None]:
    """Within, in this context, each model reads a prompt once for draft, samples, dropout and hidden states.

    Only the last prompt of each model is kept: its cache takes 57 kB a token with Qwen2.5-Coder-1.5B in float32.
    """
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


class ReadingCancelledError(Exception):
    """Nobody waits for this prompt any more; never leaves the decoder."""


def _never() -> bool:
    return False


def cached_reading(
    weights: Weights, ids: Sequence[int], cancelled: Callable[[], bool] = _never
) -> Reading | None:
    """The reading of this prompt where prompts are kept, made now if need be; None where they are not.

    Raises
    ------
    ReadingCancelledError
        `cancelled` said so while it was made.
    """
    kept = _kept.get()
    if kept is None:
        return None
    with kept.lock:
        found = kept.last.get(id(weights))
        if found is not None and found[1] == tuple(ids):
            return found[2]
        reading = read(weights, ids, cancelled)
        kept.last[id(weights)] = (weights, tuple(ids), reading)
        return reading


def read(weights: Weights, ids: Sequence[int], cancelled: Callable[[], bool] = _never) -> Reading:
    """Read a prompt of at least one token; `cancelled` is asked before each part of it."""
    import torch

    from confroute.models.decoding import PREFILL_TOKENS, new_cache

    network, cache, out = weights.network, new_cache(weights), None
    with torch.inference_mode():
        for start in range(0, len(ids), PREFILL_TOKENS):
            if cancelled():
                raise ReadingCancelledError
            part = torch.tensor([list(ids[start : start + PREFILL_TOKENS])], device=network.device)
            wanted = start + PREFILL_TOKENS >= len(ids)
            with weights.lock:
                # Without the head: of all positions, only the last is projected onto the vocabulary.
                out = network.base_model(
                    input_ids=part, past_key_values=cache, use_cache=True, output_hidden_states=wanted
                )
        assert out is not None, "the caller refuses empty prompts"
        with weights.lock:
            logits = network.get_output_embeddings()(out.last_hidden_state[:, -1:])[0, -1].float()
        states = torch.stack([state[0, -1].float() for state in out.hidden_states])
    return Reading(cache=cache, logits=logits, states=states)
