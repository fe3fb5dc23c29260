"""Decode with torch: n continuations of one prompt, one token per row and step.

The prompt is processed once as a single row, whose cache is then repeated. Rows that have ended leave the batch.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from confroute.models.loading import Weights
from confroute.models.prompt_cache import (
    PREFILL_TOKENS,
    ReadingCancelledError,
    cached_reading,
    held_in,
    new_cache,
)
from confroute.models.sampling import Drawn, SamplingPlan

ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers annotates neither hook
    """A `DynamicLayer` whose tensors are views into buffers with room for more tokens, so that few steps copy them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated either
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the keys and values of one step, of shape (rows, heads, tokens, width)."""
        assert self.keys is not None
        assert self.values is not None
        have, more = self.keys.shape[-2], key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or buffers[0].shape[-2] < have + more:
            buffers = self._buffers = (self._grown(self.keys, more), self._grown(self.values, more))
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, have : have + more] = states
        self.keys, self.values = (buffer[:, :, : have + more] for buffer in buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        super().batch_select_indices(indices)
        self._buffers = None

    @staticmethod
    def _grown(states: torch.Tensor, more: int) -> torch.Tensor:
        rows, heads, tokens, width = states.shape
        buffer = states.new_empty(rows, heads, tokens + more + ROOM, width)
        buffer[:, :, :tokens] = states
        return buffer


def repeat_rows(cache: DynamicCache, rows: int) -> None:
    """Expand a one-row cache to `rows` rows with room to grow; other kinds of layers grow in their own way."""
    cache.batch_repeat_interleave(rows)
    for position, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[position] = RoomyLayer(layer.keys, layer.values)


SCORE_TOKENS = 128
NUCLEUS_GUESS = 256


class Decoder:
    """Draws one token per row at every `step`.

    Parameters
    ----------
    weights : Weights
    prompt : sequence of int
        Token ids, at least one.
    plan : SamplingPlan
    cancel : threading.Event, optional
        Once set, `step` returns None.
    """

    def __init__(
        self,
        weights: Weights,
        prompt: Sequence[int],
        plan: SamplingPlan,
        cancel: threading.Event | None = None,
    ) -> None:
        self._weights, self._prompt, self._plan, self._cancel = weights, prompt, plan, cancel
        self._rows = list(range(plan.n))
        self._kept: list[int] | None = None
        self._last: torch.Tensor | None = None
        self._steps = 0
        self._cache = new_cache(weights)
        self._uniforms = _uniforms(plan).to(weights.network.device)

    def drop(self, rows: Collection[int]) -> None:
        """Remove rows from the batch; they cost nothing from the next step on."""
        if rows:
            current = range(len(self._rows)) if self._kept is None else self._kept
            self._kept = [index for index in current if self._rows[index] not in rows]

    @torch.inference_mode()
    def step(self) -> list[Drawn] | None:
        """Draw the next token of every remaining row; None once cancelled.

        Raises
        ------
        RuntimeError
            From torch, for example when memory runs out.
        """
        if self._cancelled():
            return None
        logits = self._process_prompt() if self._last is None else self._process_last()
        if logits is None:
            return None
        uniforms = self._uniforms[self._rows, self._steps] if self._plan.temperature else None
        tokens = choose(logits, self._plan, uniforms)
        total = logits.logsumexp(1)
        # The difference of a certain token may be a rounding error above 0.
        logprobs = (logits.gather(1, tokens[:, None])[:, 0] - total).clamp(max=0.0)
        tops = likeliest(logits, total, self._plan.top_logprobs)
        self._last, self._steps = tokens, self._steps + 1
        drawn = zip(self._rows, tokens.tolist(), logprobs.tolist(), tops, strict=True)
        return [Drawn(row=row, token=token, logprob=logprob, top=top) for row, token, logprob, top in drawn]

    def _cancelled(self) -> bool:
        return self._cancel is not None and self._cancel.is_set()

    def _process_prompt(self) -> torch.Tensor | None:
        try:
            reading = cached_reading(self._weights, self._prompt, self._cancelled)
        except ReadingCancelledError:
            return None
        if reading is not None:
            self._cache = reading.copy_cache()
            repeat_rows(self._cache, self._plan.n)
            return reading.logits.expand(self._plan.n, -1)
        logits: torch.Tensor | None = None
        for start in range(0, len(self._prompt), PREFILL_TOKENS):
            if self._cancelled():
                return None
            part = torch.tensor(
                [self._prompt[start : start + PREFILL_TOKENS]], device=self._weights.network.device
            )
            logits = forward(self._weights, part, self._cache, keep=1)
        assert logits is not None, "callers refuse empty prompts"
        repeat_rows(self._cache, self._plan.n)
        return logits[:, -1].expand(self._plan.n, -1)

    def _process_last(self) -> torch.Tensor:
        assert self._last is not None
        if self._kept is not None:
            kept = torch.tensor(self._kept, device=self._last.device)
            self._cache.batch_select_indices(kept)
            self._last = self._last[kept]
            self._rows = [self._rows[index] for index in self._kept]
            self._kept = None
        return forward(self._weights, self._last[:, None], self._cache, keep=1)[:, -1]


def likeliest(logits: torch.Tensor, total: torch.Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """The `count` likeliest tokens of each row with their log-probabilities, likeliest first."""
    if not count:
        return [()] * len(logits)
    values, ids = logits.topk(min(count, logits.shape[1]), dim=1)
    logprobs = (values - total[:, None]).clamp(max=0.0)
    return [
        tuple(zip(row_ids, row, strict=True))
        for row_ids, row in zip(ids.tolist(), logprobs.tolist(), strict=True)
    ]


def forward(weights: Weights, ids: torch.Tensor, cache: DynamicCache, *, keep: int) -> torch.Tensor:
    """Run the network and return float32 logits of the last `keep` positions, of shape (rows, keep, vocabulary)."""
    network = weights.network
    only: dict[str, Any] = {"logits_to_keep": keep} if _can_keep(network.__class__) else {}
    with weights.lock:
        out = network(input_ids=ids, **held_in(network, cache), **only)
    logits: torch.Tensor = out.logits[:, -keep:]
    return logits.float()


@torch.inference_mode()
def score(weights: Weights, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """Natural log-probability of every token of `answer` after `prompt`, at temperature 1."""
    ids, first = [*prompt, *answer], len(prompt)
    cache, values = new_cache(weights), list[float]()
    starts = [*range(0, first, PREFILL_TOKENS), *range(first, len(ids) - 1, SCORE_TOKENS)]
    for start, stop in zip(starts, [*starts[1:], max(first, len(ids) - 1)], strict=True):
        keep = 1 if start < first else stop - start
        logits = forward(
            weights, torch.tensor([ids[start:stop]], device=weights.network.device), cache, keep=keep
        )[0]
        if stop >= first:
            targets = torch.tensor(ids[stop - keep + 1 : stop + 1], device=logits.device)
            gathered = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
            values += gathered.clamp(max=0.0).tolist()
    return values


def choose(logits: torch.Tensor, plan: SamplingPlan, uniforms: torch.Tensor | None) -> torch.Tensor:
    """Choose one token per row: the likeliest, or the one at the quantile `uniforms` of the distribution.

    Examples
    --------
    >>> choose(torch.tensor([[0.0, 2.0]]), SamplingPlan(), None)
    tensor([1])
    """
    if uniforms is None:
        return logits.argmax(1)
    probabilities = (logits / plan.temperature).softmax(1)
    if plan.top_p >= 1.0:
        return _invert(probabilities, uniforms)
    kept, order = _nucleus(probabilities, plan.top_p)
    return order.gather(1, _invert(kept, uniforms)[:, None])[:, 0]


def _invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    # Not `multinomial`, which draws a random number per vocabulary entry from one stream for all rows.
    cumulative = probabilities.cumsum(1, dtype=torch.float64)
    total = cumulative[:, -1:].contiguous()
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    # A draw that rounds up to the total must not select an impossible token after the last possible one.
    return torch.minimum(tokens, torch.searchsorted(cumulative, total))[:, 0]


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest tokens that hold `top_p` of the mass, sorted, with the others set to 0; and their ids."""
    size = min(NUCLEUS_GUESS, probabilities.shape[1])
    values, order = probabilities.topk(size, dim=1)
    if bool((values.sum(1) < top_p).any()):
        values, order = probabilities.sort(dim=1, descending=True)
    before = values.cumsum(1) - values
    return torch.where(before < top_p, values, 0.0), order


def _uniforms(plan: SamplingPlan) -> torch.Tensor:
    """All random draws of a call, made in advance so that a row's draws do not depend on when other rows end."""
    generator = torch.Generator()
    if plan.seed is None:
        generator.seed()
    else:
        generator.manual_seed(plan.seed)
    return torch.rand(plan.n, plan.max_tokens, dtype=torch.float64, generator=generator)


@functools.cache
def _can_keep(network: type[torch.nn.Module]) -> bool:
    # transformers wraps `forward` in decorators that keep its signature.
    return "logits_to_keep" in inspect.signature(network.forward).parameters
