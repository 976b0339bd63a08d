"""CPU attention over short rows, as matrix products with stored scores.

PyTorch's fused kernel never stores the scores and recomputes them in backward: right for long
rows, but on a CPU its small products run far below the peak. Up to some hundred positions the
scores fit in the caches, and large products are faster, with the operations between them fused by
the compiler (uncompiled, nothing is gained):

    e = exp(q kᵀ·scale − row maximum)       causal: a block of queries ends at its own keys
    y = e v / Σe                              ×                e is stored in the compute dtype,
                                              × ×              Σe in fp32; backward needs no
                                              × × ×            softmax
    ∂v = eᵀ (∂y / Σe)        ∂s = e · (∂y vᵀ / Σe − Σ(e · ∂y vᵀ / Σe) / Σe) · scale

Queries of one group are stacked, so that each key/value head is read once for all of them and its
gradient is summed inside the product. Of the two ways to compute aᵀ b, the one that reads the
large factor row by row, (bᵀ a)ᵀ, takes three quarters of the time.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# positions; for longer rows the stored scores, T² per head, cost more than they save
CPU_ATTENTION_MAX_LENGTH = 512
# queries at a time; smaller blocks skip more masked keys, but have slower products
QUERY_BLOCK = 128


def cpu_attention(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, mask_B1TT: Tensor | None = None
) -> Tensor:
    """Return causal softmax attention [B, H, T, E] of rows without a cache.

    A mask restricts the keys further; it must be True for each position and itself.
    """
    B, H, T, E = q_BHTE.shape
    K = k_BKTE.shape[1]
    q = q_BHTE.reshape(B * K, H // K, T, E)
    k, v = k_BKTE.reshape(B * K, T, E), v_BKTE.reshape(B * K, T, E)
    y: Tensor = _CpuAttention.apply(q, k, v, mask_B1TT)  # type: ignore[no-untyped-call]
    return y.view(B, H, T, E)


class _CpuAttention(torch.autograd.Function):
    """q, y: [N, G, T, E]; k, v: [N, T, E]; N = B·K rows times key/value heads, G = H / K."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        N, G, T, E = q.shape
        parts, saved = [], []
        for start, stop in _query_blocks(T):
            q_block = q[:, :, start:stop].reshape(N, -1, E)
            s = torch.bmm(q_block, k[:, :stop].mT).view(N, G, stop - start, stop)
            s = torch.where(_visible_keys(start, stop, mask_B1TT, N, q), s.float(), -torch.inf)
            # scale after the subtraction: otherwise the compiler recognizes a pattern, and spends
            # a third of the time on guards against infinite scales
            e = ((s - s.amax(-1, keepdim=True)) * (1 / math.sqrt(E))).exp()
            e = e.to(q.dtype)
            sums = e.sum(-1, keepdim=True, dtype=torch.float32)
            y = torch.bmm(e.view(N, -1, stop), v[:, :stop]).view(N, G, -1, E)
            parts.append((y.float() / sums).to(q.dtype))
            saved += [e, sums]
        ctx.save_for_backward(q, k, v, *saved)
        return torch.cat(parts, dim=2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *saved = ctx.saved_tensors
        N, _, T, E = q.shape
        q_parts, k_parts, v_parts = [], [], []
        for (start, stop), e, sums in zip(_query_blocks(T), saved[::2], saved[1::2], strict=True):
            q_block = q[:, :, start:stop].reshape(N, -1, E)
            grad_block = (grad[:, :, start:stop].float() / sums).to(q.dtype).reshape(N, -1, E)
            rows = e.view(N, -1, stop)
            v_parts.append(torch.bmm(grad_block.mT, rows).mT)
            p = torch.bmm(grad_block, v[:, :stop].mT).view(e.shape).float()
            e_float = e.float()
            s = e_float * (p - (e_float * p).sum(-1, keepdim=True) / sums)
            s = (s * (1 / math.sqrt(E))).to(q.dtype).view(N, -1, stop)
            q_parts.append(torch.bmm(s, k[:, :stop]).view(N, -1, stop - start, E))
            k_parts.append(torch.bmm(q_block.mT, s).mT)
        return (
            torch.cat(q_parts, dim=2),
            _sum_key_grads(k_parts, T),
            _sum_key_grads(v_parts, T),
            None,
        )


def _query_blocks(T: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERY_BLOCK, T)) for start in range(0, T, QUERY_BLOCK)]


def _visible_keys(start: int, stop: int, mask_B1TT: Tensor | None, N: int, like: Tensor) -> Tensor:
    """Return the mask of queries start … stop over keys 0 … stop, broadcast over [N, G]."""
    # int32: as many per vector register as fp32 scores
    queries = torch.arange(start, stop, dtype=torch.int32, device=like.device)[:, None]
    mask = queries >= torch.arange(stop, dtype=torch.int32, device=like.device)
    if mask_B1TT is None:
        return mask
    B = len(mask_B1TT)
    own = mask_B1TT[:, :, start:stop, :stop].expand(B, N // B, -1, -1)
    return mask & own.reshape(N, 1, stop - start, stop)


def _sum_key_grads(parts: list[Tensor], T: int) -> Tensor:
    """Return the fp32 sum [N, T, E], rounded once, of gradients of each block's first keys."""
    total = parts[-1].float()
    for part in parts[:-1]:
        total = total + F.pad(part.float(), (0, 0, 0, T - part.shape[1]))
    return total.to(parts[-1].dtype)
