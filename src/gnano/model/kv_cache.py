"""What was already computed? Keys and values of the tokens seen so far, layer by layer.

The buffers have their full length from the start, so that a step writes one column and
nothing is copied. In bf16 the `1b` shape takes 24,576 bytes a token.

Rows may hold texts of different lengths; each goes on where it is:

    row 0   a b c d e ·         a prompt that was shorter was padded at its end, and the padding
    row 1   f g · · · ·         forgotten (`keep`): nothing sees it, and what comes next covers it
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.config.model_config import ModelConfig


class LayerCache:
    """Keys and values of one layer: [B, K, length, E] each."""

    def __init__(self, k_BKTE: Tensor, v_BKTE: Tensor) -> None:
        self.k_BKTE, self.v_BKTE = k_BKTE, v_BKTE
        self.start = self.end = 0  # where the next positions go, and with them all that is read
        self.positions_BT: Tensor | None = None  # where, if each row has its own

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
    """One `LayerCache` a layer, with room for `length` tokens in each of B rows."""

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
        # zeros: what a shorter row has not written is read with a weight of 0, and 0 × NaN is not 0
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
        """These rows, from `first` up to `last`, as a cache of their own on the same memory."""
        part = object.__new__(type(self))
        part.capacity, part.lengths = self.capacity, self.lengths[start:stop]
        part.layers = [LayerCache(x.k_BKTE[start:stop], x.v_BKTE[start:stop]) for x in self.layers]
        return part

    def expand(self, batch_size: int, extra_capacity: int) -> Self:
        """So many rows, copies of the only one here, with room for so many tokens more."""
        (size,) = self.lengths.tolist()
        wider = object.__new__(type(self))
        wider.capacity, wider.lengths = size + extra_capacity, self.lengths.repeat(batch_size)

        def copied(buffer_BKTE: Tensor) -> Tensor:
            # zeros, as above
            return F.pad(
                buffer_BKTE[:, :, :size].expand(batch_size, -1, -1, -1), (0, 0, 0, extra_capacity)
            )

        wider.layers = [LayerCache(copied(x.k_BKTE), copied(x.v_BKTE)) for x in self.layers]
        return wider

    def copy_row(self, source: int, target: int) -> None:
        """Copy a row over another one."""
        size = self.lengths[target] = self.lengths[source]
        for layer in self.layers:
            for buffer in layer.k_BKTE, layer.v_BKTE:
                buffer[target, :, :size] = buffer[source, :, :size]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what each row holds beyond so many tokens."""
        assert all(0 <= kept <= held for kept, held in zip(lengths, self.lengths, strict=True))
        self.lengths[:] = lengths

    def advance(self, num_tokens: int) -> Tensor | None:
        """Make ready for so many more in each row: their positions [B, T], or None if all alike."""
        # what is past the end would silently be forgotten
        assert self.max_length + num_tokens <= self.capacity, "the cache is full"
        start = int(self.lengths[0])
        places_BT = None
        if (self.lengths != start).any():
            places = self.lengths[:, None] + np.arange(num_tokens)
            places_BT = torch.from_numpy(places).to(self.layers[0].k_BKTE.device)
        for layer in self.layers:
            layer.start, layer.end, layer.positions_BT = (
                start,
                self.max_length + num_tokens,
                places_BT,
            )
        self.lengths += num_tokens
        return places_BT
