"""Where is a token? Rotary positions, half-split as Hugging Face's Llama has them.

Channel j of a head and channel j + E/2 form a pair, which turns by position × θ^(-2j/E).
A dot product of two turned vectors then depends on their distance alone
(Su et al. 2021, https://arxiv.org/abs/2104.09864).
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Rope(NamedTuple):
    """Cosines and sines of positions, to rotate queries and keys by."""

    cos_TE: Tensor  # [T, E/2], fp32; or [B, 1, T, E/2] where each row has positions of its own
    sin_TE: Tensor

    def select(self, positions: slice | Tensor) -> "Rope":
        """Return the rotations of a table's positions: a slice, or [B, T] of each row."""
        if isinstance(positions, slice):
            return Rope(self.cos_TE[positions], self.sin_TE[positions])
        return Rope(self.cos_TE[positions][:, None], self.sin_TE[positions][:, None])

    def rotate(self, x_BHTE: Tensor) -> Tensor:
        """Rotate each pair of channels by its position's angle."""
        first, second = x_BHTE.chunk(2, dim=-1)
        rotated = torch.cat(
            (
                first * self.cos_TE - second * self.sin_TE,
                second * self.cos_TE + first * self.sin_TE,
            ),
            dim=-1,
        )
        return rotated.to(x_BHTE.dtype)


# not a module's buffer: `model.to(bfloat16)` would round the angles with the weights
@lru_cache(maxsize=8)
def rope_table(head_size: int, length: int, theta: float, device: torch.device) -> Rope:
    """Return the rotations of positions 0 … length-1."""
    # an inference-mode tensor kept here could not be saved for a later backward pass
    with torch.inference_mode(False):
        pairs = torch.arange(0, head_size, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / theta ** (pairs / head_size)
        positions = torch.arange(length, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
        return Rope(angles.cos(), angles.sin())
