"""What the attention of the transformer works with: RoPE, the KV cache and the kernels.

Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864) are half-split, as in Hugging
Face's Llama: channels j and j + E/2 of a head form a pair, rotated by position × θ^(-2j/E), so that
a product of a query and a key depends only on their distance.

Attention is causal, and within one document or branch where a row holds several:

    one document             two documents, ids 0 0 0 1 1     a prefix and two branches, 0 0 1 1 2
    ×                        ×                                ×
    × ×                      × ×                              × ×
    × × ×                    × × ×                            × × ×
    × × × ×                        ×                          × × × ×
    × × × × ×                      × ×                        × ×     ×

The KV cache holds keys and values of the tokens so far, layer by layer: in bf16 24,576 bytes per
token of the `1b` shape. Buffers have their full length from the start, so that a step writes one
column and copies nothing. Rows may hold texts of different lengths:

    row 0   a b c d e ·         a shorter prompt is padded at its end, and the padding truncated:
    row 1   f g · · · ·         nothing attends to it, and later tokens overwrite it

For sequences that are served together, a step of one token per row reads the cache in whole tiles
of `KEY_TILE` positions, always with a mask. The longest row decides how many tiles are read, and
those beyond the end of a shorter row add exactly 0 to it: its result does not depend on the other
rows, bit for bit. In fp32, PyTorch's CPU kernel adds up in an order that depends on the number of
rows and keys, so `_attend_tiles` computes products of one shape only.

On a CPU, PyTorch's fused kernel never stores the scores and recomputes them in backward: right for
long rows, but its small products run far below the peak. Up to some hundred positions the scores
fit in the caches, and large products are faster, with the operations between them fused by the
compiler (uncompiled, nothing is gained). `cpu_attention`:

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
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gnano.config.model_config import ModelConfig

# positions; for longer rows the stored scores, T² per head, cost more than they save
CPU_ATTENTION_MAX_LENGTH = 512
# queries at a time; smaller blocks skip more masked keys, but have slower products
QUERY_BLOCK = 128
# GPUs, by compute capability, on which cuDNN's attention is the fastest in training, and the order
# in which PyTorch tries its kernels there. Everywhere else cuDNN is off (see `GPT`)
CUDNN_CAPABILITIES = ((9, 0), (10, 0))
CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
KEY_TILE = 128  # positions of the cache that a decoding step reads at a time


class PrefixTree(NamedTuple):
    """The layout of rows that hold a common prefix and several continuations of it."""

    branch_ids_BT: Tensor  # 0 for the prefix, from 1 for the branches
    positions_BT: Tensor  # of each token in its own text, from 0


@dataclass(eq=False)
class LayerCache:
    """Keys and values of one layer: [B, K, capacity, E] each."""

    k_BKTE: Tensor
    v_BKTE: Tensor
    start: int = 0  # the next positions to write; all up to `end` are read
    end: int = 0
    positions_BT: Tensor | None = None  # to write, if they differ between rows

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
    """One `LayerCache` per layer, with a capacity in tokens for each of B rows.

    With `in_tiles` a step of one token per row reads whole tiles of keys, so that no row depends on
    the lengths of the others.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        in_tiles: bool = False,
    ) -> None:
        if in_tiles:
            capacity = round_up(capacity, KEY_TILE)
        self.capacity, self.in_tiles = capacity, in_tiles
        self.lengths = np.zeros(batch_size, np.int64)  # tokens that each row holds; may be reduced
        shape = (batch_size, config.n_kv_head, capacity, config.head_size)
        # zeros: unwritten positions of shorter rows are read with weight 0, and 0 × NaN is not 0
        self.layers = [
            LayerCache(
                torch.zeros(shape, dtype=dtype, device=device),
                torch.zeros(shape, dtype=dtype, device=device),
            )
            for _ in range(config.n_layer)
        ]

    def slice_rows(self, start: int, stop: int) -> Self:
        """Return a cache of some rows that shares their memory."""
        part = copy(self)
        part.lengths = self.lengths[start:stop]
        part.layers = [LayerCache(x.k_BKTE[start:stop], x.v_BKTE[start:stop]) for x in self.layers]
        return part

    def expand(self, batch_size: int, extra_capacity: int) -> Self:
        """Return a cache with copies of the only row, with more capacity."""
        (size,) = self.lengths.tolist()
        wider = copy(self)
        wider.capacity, wider.lengths = size + extra_capacity, self.lengths.repeat(batch_size)

        def copy_rows(buffer_BKTE: Tensor) -> Tensor:
            used_BKTE = buffer_BKTE[:, :, :size].expand(batch_size, -1, -1, -1)
            return F.pad(used_BKTE, (0, 0, 0, extra_capacity))

        wider.layers = [LayerCache(copy_rows(x.k_BKTE), copy_rows(x.v_BKTE)) for x in self.layers]
        return wider

    def copy_row(self, source: int, target: int) -> None:
        """Overwrite row `target` with row `source`."""
        size = self.lengths[target] = self.lengths[source]
        for layer in self.layers:
            for buffer in layer.k_BKTE, layer.v_BKTE:
                buffer[target, :, :size] = buffer[source, :, :size]

    def clear_row(self, row: int) -> None:
        """Zero the row, so that values that are not finite do not outlive it."""
        self.lengths[row] = 0
        for layer in self.layers:
            layer.k_BKTE[row] = layer.v_BKTE[row] = 0

    def advance(self, num_tokens: int) -> Tensor | None:
        """Prepare for new tokens; return their positions [B, T], or None if no mask is needed."""
        start, end = int(self.lengths[0]), int(self.lengths.max()) + num_tokens
        # writing past the end would silently be dropped
        assert end <= self.capacity, "the cache is full"
        if reads_tiles := self.in_tiles and num_tokens == 1:
            end = round_up(end, KEY_TILE)
        positions_BT = None
        if reads_tiles or (self.lengths != start).any():
            positions = self.lengths[:, None] + np.arange(num_tokens)
            positions_BT = torch.from_numpy(positions).to(self.layers[0].k_BKTE.device)
        for layer in self.layers:
            layer.start, layer.end, layer.positions_BT = start, end, positions_BT
        self.lengths += num_tokens
        return positions_BT


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple that is not below the number."""
    return -(-number // multiple) * multiple


def attend(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Return causal softmax attention of the last T positions over all S keys.

    A `mask` [B, 1, T, S] replaces the causal one; True where a position attends to a key.
    """
    T, S = q_BHTE.shape[2], k_BKTE.shape[2]
    if (
        torch.compiler.is_compiling()
        and q_BHTE.device.type == "cpu"
        and q_BHTE.dtype == torch.bfloat16  # in fp32 it is no faster
        and not dropout
        and 1 < T == S <= CPU_ATTENTION_MAX_LENGTH
    ):
        return cpu_attention(q_BHTE, k_BKTE, v_BKTE, mask)
    group = q_BHTE.shape[1] // k_BKTE.shape[1]
    if T == 1 and S > 1 and not dropout:
        # the queries of a group attend to the same keys: as rows of one product they share a read
        q_BKGE = q_BHTE.reshape(*k_BKTE.shape[:2], group, -1)
        is_cpu_fp32 = q_BHTE.device.type == "cpu" and q_BHTE.dtype == torch.float32
        if mask is not None and is_cpu_fp32 and not torch.compiler.is_compiling():
            y_BKGE = _attend_tiles(q_BKGE, k_BKTE, v_BKTE, mask)
        else:
            y_BKGE = F.scaled_dot_product_attention(q_BKGE, k_BKTE, v_BKTE, attn_mask=mask)
        return y_BKGE.flatten(1, 2)[:, :, None]
    needs_copies = mask is not None
    if mask is None and 1 < T < S:  # SDPA aligns its own causal mask to the first position
        mask = torch.ones(T, S, dtype=torch.bool, device=q_BHTE.device).tril(S - T)
        needs_copies = q_BHTE.device.type == "cuda"
    if needs_copies:
        # the only fused CUDA kernel that takes a mask on every GPU takes no grouped heads, and
        # PyTorch's fallback stores all [B, H, T, T] scores, which are larger than these copies
        k_BKTE, v_BKTE = (x.repeat_interleave(group, dim=1) for x in (k_BKTE, v_BKTE))
    is_causal = mask is None
    if T == 1:  # not one expression: in a compiled function, T == 1 is no plain bool
        is_causal = False
    uses_cudnn = (
        is_causal
        and torch.is_grad_enabled()
        and q_BHTE.device.type == "cuda"
        and torch.cuda.get_device_capability(q_BHTE.device) in CUDNN_CAPABILITIES
        and not torch.are_deterministic_algorithms_enabled()
    )
    # enable_gqa: the kernels read each key/value head once per group, without a copy
    with sdpa_kernel(CUDNN_FIRST, set_priority=True) if uses_cudnn else nullcontext():
        return F.scaled_dot_product_attention(
            q_BHTE,
            k_BKTE,
            v_BKTE,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=is_causal,
            enable_gqa=q_BHTE.shape[1] != k_BKTE.shape[1],
        )


def _attend_tiles(q_BKGE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, mask_B11T: Tensor) -> Tensor:
    """Return softmax attention [B, K, G, E], of which each product has one tile of keys."""
    k_tiles, v_tiles = (torch.split(x, KEY_TILE, dim=2) for x in (k_BKTE, v_BKTE))
    q_BKGE = q_BKGE * (1 / math.sqrt(q_BKGE.shape[-1]))
    scores = [torch.matmul(q_BKGE, k_BKCE.mT) for k_BKCE in k_tiles]
    scores_BKGT = scores[0] if len(scores) == 1 else torch.cat(scores, dim=-1)
    weights_BKGT = scores_BKGT.masked_fill_(~mask_B11T, -torch.inf).softmax(-1)
    tiles = zip(torch.split(weights_BKGT, KEY_TILE, dim=-1), v_tiles, strict=True)
    products = [torch.matmul(weights_BKGC, v_BKCE) for weights_BKGC, v_BKCE in tiles]
    y_BKGE = products[0]
    for product_BKGE in products[1:]:
        y_BKGE += product_BKGE
    return y_BKGE


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
        for start in range(0, T, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, T)
            q_block = q[:, :, start:stop].reshape(N, -1, E)
            s = torch.bmm(q_block, k[:, :stop].mT).view(N, G, stop - start, stop)
            # int32: as many per vector register as fp32 scores
            queries = torch.arange(start, stop, dtype=torch.int32, device=q.device)[:, None]
            visible = queries >= torch.arange(stop, dtype=torch.int32, device=q.device)
            if mask_B1TT is not None:
                B = len(mask_B1TT)
                own = mask_B1TT[:, :, start:stop, :stop].expand(B, N // B, -1, -1)
                visible = visible & own.reshape(N, 1, stop - start, stop)
            s = torch.where(visible, s.float(), -torch.inf)
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
        for start, e, sums in zip(range(0, T, QUERY_BLOCK), saved[::2], saved[1::2], strict=True):
            stop = min(start + QUERY_BLOCK, T)
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
        key_grads = []
        for blocks in k_parts, v_parts:  # of each block's first keys: summed in fp32, rounded once
            total = blocks[-1].float()
            for part in blocks[:-1]:
                total = total + F.pad(part.float(), (0, 0, 0, T - part.shape[1]))
            key_grads.append(total.to(q.dtype))
        return torch.cat(q_parts, dim=2), key_grads[0], key_grads[1], None
