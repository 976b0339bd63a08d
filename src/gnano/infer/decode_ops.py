"""The operations of a GPU's decoding step: Triton kernels, each with a twin in plain PyTorch.

A step of one text reads every weight once and computes little, so what counts is that memory is
always being read: few kernels, each on all multiprocessors, and weights that are converted in
registers. The compiler's kernels would do neither.

    decode_linear      norm or SwiGLU ─▶ product with a matrix of 16, 8 or 4 bits ─▶ + residual
    decode_attention   rotary positions ─▶ keys and values into the cache ─▶ attention, with the
                       cache of each head divided among many multiprocessors

On a CPU the twins compute, for tests.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.infer.weight_formats import (
    FusedLinear,
    Int4Linear,
    Int8Linear,
    QuantizedLinear,
    dequantize_int4,
)
from gnano.model.rope import Rope
from gnano.model.transformer import RMSNorm

# rows up to which the kernel reads a quantized matrix as it is; for more, products dominate
MAX_QUANTIZED_ROWS = 64


def decode_linear(
    layer: nn.Module | None,
    x_BI: Tensor,
    norm: RMSNorm | None = None,
    residual_BO: Tensor | None = None,
    is_gated: bool = False,
) -> Tensor:
    """Return `layer` of x, or of norm(x), or of silu(gate) · up for x = [gate, up]; + residual.

    For a head, the columns of its padding are part of the result.
    """
    assert layer is not None, "the projections are fused"
    is_quantized = isinstance(layer, QuantizedLinear)
    if len(x_BI) > 1:  # the compiler fuses these into one kernel, whose rows are independent
        if norm is not None:
            x_BI, norm = norm(x_BI), None
        if is_gated:
            gate_BI, up_BI = x_BI.chunk(2, dim=-1)
            x_BI, is_gated = F.silu(gate_BI) * up_BI, False
    if len(x_BI) > (MAX_QUANTIZED_ROWS if is_quantized else 1):
        # a third dimension: else the compiler copies the residual, for a product that adds to it
        y_BO: Tensor = layer(x_BI[:, None])[:, 0]
        return y_BO if residual_BO is None else residual_BO + y_BO
    assert isinstance(layer, FusedLinear | Int8Linear | Int4Linear)
    weight_OI: Tensor
    scales: Tensor | None
    if isinstance(layer, FusedLinear):
        weight_OI, scales = layer.weight, None
    elif isinstance(layer, Int8Linear):
        weight_OI, scales = layer.q_OI, layer.scale_O
    else:
        weight_OI, scales = layer.q_OI, layer.scales_zeros_GO2
    fused_BO = residual_BO if layer.bias is None else None
    norm_weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps or 0.0)
    y_BO = decode_product(x_BI, weight_OI, scales, norm_weight, eps, fused_BO, is_gated)
    if layer.bias is not None:
        y_BO = y_BO + layer.bias.to(y_BO.dtype)
        y_BO = y_BO if residual_BO is None else residual_BO + y_BO
    return y_BO


@torch.library.custom_op("gnano::decode_product", mutates_args=())
def decode_product(
    x_BI: Tensor,
    weight_OI: Tensor,
    scales: Tensor | None,
    norm_weight_I: Tensor | None,
    eps: float,
    residual_BO: Tensor | None,
    is_gated: bool,
) -> Tensor:
    """Return x @ Wᵀ [B, O] of x, normalized with `norm_weight_I`, or gated; + residual.

    The matrix has the form of `FusedLinear`, or with `scales` that of `Int8Linear` or `Int4Linear`
    on a GPU.
    """
    if x_BI.is_cuda:
        from gnano.infer.triton_kernels import launch_product

        return launch_product(x_BI, weight_OI, scales, norm_weight_I, eps, residual_BO, is_gated)
    dtype = x_BI.dtype
    if is_gated:
        gate_BI, up_BI = x_BI.chunk(2, dim=-1)
        x_BI = F.silu(gate_BI) * up_BI
    if norm_weight_I is not None:
        x_BI = F.rms_norm(x_BI.float(), x_BI.shape[-1:], eps=eps).to(dtype) * norm_weight_I
    w_OI = weight_OI.float()
    if scales is not None:
        is_int8 = weight_OI.dtype == torch.int8
        w_OI = w_OI * scales[:, None] if is_int8 else dequantize_int4(weight_OI, scales.float())
    y_BO = x_BI.float() @ w_OI.T
    return (y_BO if residual_BO is None else y_BO + residual_BO.float()).to(dtype)


@decode_product.register_fake
def _(x_BI: Tensor, weight_OI: Tensor, *_: object) -> Tensor:
    return x_BI.new_empty(x_BI.shape[0], weight_OI.shape[0])  # not len: it would fix the rows


@torch.library.custom_op("gnano::decode_attention", mutates_args=("k_BKTE", "v_BKTE"))
def decode_attention(
    qkv_BHE: Tensor,
    cos_TE: Tensor,
    sin_TE: Tensor,
    positions_B: Tensor,
    k_BKTE: Tensor,
    v_BKTE: Tensor,
) -> Tensor:
    """Rotate queries and keys, store keys and values, return attention [B, H, E].

    `qkv_BHE` has the heads of queries, keys and values after one another; row b attends to the keys
    up to its position.
    """
    if qkv_BHE.is_cuda:
        from gnano.infer.triton_kernels import launch_attention

        return launch_attention(qkv_BHE, cos_TE, sin_TE, positions_B, k_BKTE, v_BKTE)
    (B, K, T, E), rows_B = k_BKTE.shape, torch.arange(len(positions_B))
    H = qkv_BHE.shape[1] - 2 * K
    rope = Rope(cos_TE[positions_B], sin_TE[positions_B])
    q_BHE = rope.rotate(qkv_BHE[:, :H])
    k_BKTE[rows_B, :, positions_B] = rope.rotate(qkv_BHE[:, H : H + K])
    v_BKTE[rows_B, :, positions_B] = qkv_BHE[:, H + K :]
    q_BKGE = q_BHE.reshape(B, K, H // K, E).float() / math.sqrt(E)
    is_hidden_BT = torch.arange(T) > positions_B[:, None]
    scores_BKGT = (q_BKGE @ k_BKTE.float().mT).masked_fill(is_hidden_BT[:, None, None], -math.inf)
    y_BKGE = scores_BKGT.softmax(-1) @ v_BKTE.float()
    return y_BKGE.reshape(B, H, E).to(qkv_BHE.dtype)


@decode_attention.register_fake
def _(qkv_BHE: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> Tensor:
    B, heads, E = qkv_BHE.shape
    return qkv_BHE.new_empty(B, heads - 2 * k.shape[1], E)
