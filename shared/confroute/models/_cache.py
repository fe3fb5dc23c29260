"""A key-value cache that grows in place.

transformers' own `DynamicLayer` copies the whole cache at every token; with eight rows behind a long prompt that copy costs
as much as the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers annotates neither hook
    """A `DynamicLayer` whose tensors are views into buffers with room for more tokens."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nor this one
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append one step's keys and values, shaped (rows, heads, tokens, width)."""
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
    """Expand a one-row cache to `rows` rows with room to grow; layers of other kinds keep their own way."""
    cache.batch_repeat_interleave(rows)
    for position, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[position] = RoomyLayer(layer.keys, layer.values)
