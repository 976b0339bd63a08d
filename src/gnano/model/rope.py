"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) and its scalings for long contexts.

Pair e of a head's channels, (e, e + E/2), is rotated by position · frequency_e. The frequencies
fall from 1 to 1/θ. `linear` divides all of them; `llama3` and `yarn` divide those that turn little
over the context of pretraining, and leave those that turn often, which tell neighboring positions
apart.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gnano.config.model_config import ModelConfig, RopeScaling


class Rope(NamedTuple):
    """Cosines and sines of positions, to rotate queries and keys by."""

    cos_TE: Tensor  # [T, E/2], fp32; or [B, T, E/2] for positions per row
    sin_TE: Tensor

    def rotate(self, x_BTHE: Tensor) -> Tensor:
        """Rotate each pair of channels by its position's angle."""
        cos_T1E, sin_T1E = self.cos_TE[..., None, :], self.sin_TE[..., None, :]
        first, second = x_BTHE.chunk(2, dim=-1)
        turned_first = first * cos_T1E - second * sin_T1E
        turned_second = second * cos_T1E + first * sin_T1E
        return torch.cat((turned_first, turned_second), dim=-1).to(x_BTHE.dtype)


# not a buffer of a module: `model.to(bfloat16)` would round the angles
@lru_cache(maxsize=8)
def rope_table(config: ModelConfig, device: torch.device) -> Rope:
    """Return the rotations of all positions of a model's context."""
    # a cached inference-mode tensor could not be used in a later backward pass
    with torch.inference_mode(False):
        pairs = torch.arange(0, config.head_size, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / config.rope_theta ** (pairs / config.head_size)
        frequencies, size = scale_frequencies(frequencies, config.rope_theta, config.rope_scaling)
        positions = torch.arange(config.block_size, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
        return Rope(angles.cos() * size, angles.sin() * size)


def scale_frequencies(
    frequencies_E: Tensor, theta: float, scaling: RopeScaling
) -> tuple[Tensor, float]:
    """Return the scaled frequencies [E/2], and the factor of cosines and sines.

    As in transformers' `modeling_rope_utils`.
    """
    divided_E = frequencies_E / scaling.factor
    if scaling.kind == "linear":
        return divided_E, 1.0
    if scaling.kind == "llama3":
        turns_E = scaling.original_context * frequencies_E / (2 * math.pi)
        width = scaling.high_freq_factor - scaling.low_freq_factor
        share_E = ((turns_E - scaling.low_freq_factor) / width).clamp(0, 1)
        return torch.lerp(divided_E, frequencies_E, share_E), 1.0
    if scaling.kind == "yarn":
        head_size = 2 * len(frequencies_E)
        low, high = (
            head_size * math.log(scaling.original_context / (turns * 2 * math.pi))
            / (2 * math.log(theta))
            for turns in (scaling.beta_fast, scaling.beta_slow)
        )  # fmt: skip
        if scaling.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_size - 1)
        numbers_E = torch.arange(head_size // 2, device=frequencies_E.device)
        share_E = 1 - ((numbers_E - low) / max(high - low, 0.001)).clamp(0, 1)
        size = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
        return torch.lerp(divided_E, frequencies_E, share_E), size
    return frequencies_E, 1.0
