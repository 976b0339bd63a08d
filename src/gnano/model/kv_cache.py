"""The KV cache: keys and values of the tokens so far, layer by layer.

Buffers have their full length from the start, so that a step writes one column and copies nothing.
In bf16 the `1b` shape takes 24,576 bytes per token.

Rows may hold texts of different lengths:

    row 0   a b c d e ·         a shorter prompt is padded at its end, and the padding truncated:
    row 1   f g · · · ·         nothing attends to it, and later tokens overwrite it
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.config.model_config import ModelConfig


class LayerCache:
    """Keys and values of one layer: [B, K, capacity, E] each."""

    def __init__(self, k_BKTE: Tensor, v_BKTE: Tensor) -> None:
        self.k_BKTE, self.v_BKTE = k_BKTE, v_BKTE
        self.start = self.end = 0  # the next positions to write; all up to `end` are read
        self.positions_BT: Tensor | None = None  # to write, if they differ between rows

    def append(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions; return all keys and values so far, as views."""
        if self.positions_BT is None:
            self.k_BKTE[:, :, self.start : self.end] = k_BKTE
            self.v_BKTE[:, :, self.start : self.end] = v_BKTE
        else:
            rows_B1 = torch.arange(len(self.positions_BT), device=self.k_BKTE.device)[:, None]
            self.k_BKTE[rows_B1, :, self.positions_BT] = k_BKTE.transpose(1, 2)
            self.v_BKTE[rows_B1, :, self.positions_BT] = v_BKTE.transpose(1, 2)
        return self.k_BKTE[:, :, : self.end], self.v_BKTE[:, :, : self.end]


class KVCache:
    """One `LayerCache` per layer, with a capacity in tokens for each of B rows."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        shape = (batch_size, config.n_kv_head, capacity, config.head_size)
        self.capacity = capacity
        self.lengths = np.zeros(batch_size, np.int64)  # tokens that each row holds
        # zeros: unwritten positions of shorter rows are read with weight 0, and 0 × NaN is not 0
        self.layers = [
            LayerCache(
                torch.zeros(shape, dtype=dtype, device=device),
                torch.zeros(shape, dtype=dtype, device=device),
            )
            for _ in range(config.n_layer)
        ]

    @property
    def max_length(self) -> int:
        """Tokens in the longest row."""
        return int(self.lengths.max())

    def slice_rows(self, start: int, stop: int) -> Self:
        """Return a cache of some rows that shares their memory."""
        part = object.__new__(type(self))
        part.capacity, part.lengths = self.capacity, self.lengths[start:stop]
        part.layers = [LayerCache(x.k_BKTE[start:stop], x.v_BKTE[start:stop]) for x in self.layers]
        return part

    def expand(self, batch_size: int, extra_capacity: int) -> Self:
        """Return a cache with copies of the only row, with more capacity."""
        (size,) = self.lengths.tolist()
        wider = object.__new__(type(self))
        wider.capacity, wider.lengths = size + extra_capacity, self.lengths.repeat(batch_size)

        def copy(buffer_BKTE: Tensor) -> Tensor:
            used_BKTE = buffer_BKTE[:, :, :size].expand(batch_size, -1, -1, -1)
            return F.pad(used_BKTE, (0, 0, 0, extra_capacity))

        wider.layers = [LayerCache(copy(x.k_BKTE), copy(x.v_BKTE)) for x in self.layers]
        return wider

    def copy_row(self, source: int, target: int) -> None:
        """Overwrite row `target` with row `source`."""
        size = self.lengths[target] = self.lengths[source]
        for layer in self.layers:
            for buffer in layer.k_BKTE, layer.v_BKTE:
                buffer[target, :, :size] = buffer[source, :, :size]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Shorten each row to this many tokens."""
        assert all(0 <= kept <= held for kept, held in zip(lengths, self.lengths, strict=True))
        self.lengths[:] = lengths

    def advance(self, num_tokens: int) -> Tensor | None:
        """Prepare for new tokens; return their positions [B, T], or None if rows do not differ."""
        # writing past the end would silently be dropped
        assert self.max_length + num_tokens <= self.capacity, "the cache is full"
        start = int(self.lengths[0])
        end = self.max_length + num_tokens
        positions_BT = None
        if (self.lengths != start).any():
            positions = self.lengths[:, None] + np.arange(num_tokens)
            positions_BT = torch.from_numpy(positions).to(self.layers[0].k_BKTE.device)
        for layer in self.layers:
            layer.start, layer.end, layer.positions_BT = start, end, positions_BT
        self.lengths += num_tokens
        return positions_BT
