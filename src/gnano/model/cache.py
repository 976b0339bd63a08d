"""What was already computed? Keys and values of the tokens seen so far, layer by layer.

The buffers have their full length from the start, so that a step writes one column and
nothing is copied. In bf16 the `1b` shape takes 24,576 bytes a token.
"""

import torch
from torch import Tensor

from gnano.model.config import ModelConfig


class LayerCache:
    """Keys and values of one layer: [B, K, length, E] each."""

    def __init__(self, k_BKTE: Tensor, v_BKTE: Tensor) -> None:
        self.k_BKTE, self.v_BKTE = k_BKTE, v_BKTE
        self.length = 0  # positions filled

    def append(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions; return all keys and values so far, as views."""
        start, self.length = self.length, self.length + k_BKTE.shape[2]
        # a slice past the end would be empty, and the new token silently forgotten
        assert self.length <= self.k_BKTE.shape[2], "the cache is full"
        self.k_BKTE[:, :, start : self.length] = k_BKTE
        self.v_BKTE[:, :, start : self.length] = v_BKTE
        return self.k_BKTE[:, :, : self.length], self.v_BKTE[:, :, : self.length]


class KVCache:
    """One `LayerCache` a layer, with room for `length` tokens in each of B rows."""

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        shape = (batch, config.n_kv_head, length, config.head_size)
        self.capacity = length
        self.layers = [
            LayerCache(
                torch.empty(shape, dtype=dtype, device=device),
                torch.empty(shape, dtype=dtype, device=device),
            )
            for _ in range(config.n_layer)
        ]

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.layers[0].length
