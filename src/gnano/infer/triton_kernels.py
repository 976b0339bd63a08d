"""The Triton kernels of `gnano.infer.decode_ops`; imported only where there is Triton.

    _matvec      one row: a program has a few rows of the matrix and reads them at once; it also
                 normalizes or gates its input, which costs less than a kernel that does so
    _matmul      up to 64 rows and a quantized matrix, which becomes bf16 in registers
    _attend      a program has one key/value head and one part of its cache, for all queries
                 of that head; the first part also rotates and stores the new key and value
    _combine     adds up the parts of one query head

Lengths are read from the device, so that one graph serves all. Programs whose part is empty end.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gnano.infer.weight_formats import GROUP_SIZE

MIN_PROGRAMS = 64  # among which attention is divided, however few its heads are
KEY_TILE = 16  # keys that a program reads at a time: the least of a tensor core's product
DIVIDED = {torch.uint8: 4, torch.int8: 8}  # bits of a weight


def launch_product(
    x_BI: Tensor,
    weight_OI: Tensor,
    scales: Tensor | None,
    norm_weight_I: Tensor | None,
    eps: float,
    residual_BO: Tensor | None,
    is_gated: bool,
) -> Tensor:
    """Compute `decode_product` for one row, or for up to 64 and a quantized matrix."""
    B, outputs, bits = len(x_BI), len(weight_OI), DIVIDED.get(weight_OI.dtype, 16)
    x_BI = x_BI.contiguous()
    inputs = x_BI.shape[1] // (1 + is_gated)
    y_BO = x_BI.new_empty(B, outputs)
    # an absent tensor is not read
    tensors = x_BI, weight_OI, *(x_BI if t is None else t for t in (scales, residual_BO))
    if B == 1:
        rows = 4 if bits == 16 else 8
        _matvec[(triton.cdiv(outputs, rows),)](
            *tensors, x_BI if norm_weight_I is None else norm_weight_I, y_BO, outputs, eps,
            INPUTS=inputs, BITS=bits, GROUP=GROUP_SIZE, HAS_NORM=norm_weight_I is not None,
            IS_GATED=is_gated, HAS_RESIDUAL=residual_BO is not None, ROWS=rows,
            BLOCK=min(2_048, triton.next_power_of_2(inputs)), num_warps=4 if bits == 16 else 8,
        )  # fmt: skip
        return y_BO
    assert norm_weight_I is None and not is_gated and bits < 16
    rows = max(16, triton.next_power_of_2(B))
    _matmul[(triton.cdiv(outputs, 16),)](
        *tensors, y_BO, B, outputs,
        INPUTS=inputs, BITS=bits, GROUP=GROUP_SIZE, HAS_RESIDUAL=residual_BO is not None,
        ROWS=rows, COLUMNS=16, BLOCK=128, num_warps=4, num_stages=4,
    )  # fmt: skip
    return y_BO


def launch_attention(
    qkv_BHE: Tensor,
    cos_TE: Tensor,
    sin_TE: Tensor,
    positions_B: Tensor,
    k_BKTE: Tensor,
    v_BKTE: Tensor,
) -> Tensor:
    """Compute `decode_attention`; the cache's heads are contiguous."""
    B, K, _, E = k_BKTE.shape
    H = qkv_BHE.shape[1] - 2 * K
    assert k_BKTE.stride() == v_BKTE.stride() and k_BKTE.stride()[2:] == (E, 1)
    qkv_BHE = qkv_BHE.contiguous()
    parts = triton.next_power_of_2(triton.cdiv(MIN_PROGRAMS, B * K))
    sums = qkv_BHE.new_empty(B, H, parts, E, dtype=torch.float32)
    stats = qkv_BHE.new_empty(B, H, parts, 2, dtype=torch.float32)
    y_BHE = qkv_BHE.new_empty(B, H, E)
    _attend[(B, K, parts)](
        qkv_BHE, cos_TE, sin_TE, positions_B, k_BKTE, v_BKTE, sums, stats,
        positions_B.stride(0), k_BKTE.stride(0), k_BKTE.stride(1), E**-0.5,
        H=H, K=K, E=E, PARTS=parts, TILE=KEY_TILE,
        GROUP=max(16, triton.next_power_of_2(H // K)),
        HALF=max(16, triton.next_power_of_2(E // 2)), WHOLE=max(16, triton.next_power_of_2(E)),
        num_warps=4,
    )  # fmt: skip
    _combine[(B, H)](
        sums, stats, y_BHE, E=E, PARTS=parts, WHOLE=triton.next_power_of_2(E), num_warps=4
    )
    return y_BHE


@triton.jit
def _activation(
    x, norm, i, inverse, INPUTS: tl.constexpr, HAS_NORM: tl.constexpr, IS_GATED: tl.constexpr
):
    value = tl.load(x + i, mask=i < INPUTS, other=0.0)
    dtype = value.dtype
    value = value.to(tl.float32)
    if IS_GATED:
        up = tl.load(x + INPUTS + i, mask=i < INPUTS, other=0.0).to(tl.float32)
        value = (value * tl.sigmoid(value)).to(dtype).to(tl.float32) * up
    if HAS_NORM:
        weight = tl.load(norm + i, mask=i < INPUTS, other=0.0).to(tl.float32)
        value = (value * inverse).to(dtype).to(tl.float32) * weight
    return value.to(dtype).to(tl.float32)


@triton.jit
def _matvec(
    x, w, scales, residual, norm, y, outputs, eps,
    INPUTS: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, HAS_NORM: tl.constexpr,
    IS_GATED: tl.constexpr, HAS_RESIDUAL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = rows < outputs
    first = rows.to(tl.int64) * INPUTS
    inverse = 1.0
    if HAS_NORM:
        squares = tl.zeros([BLOCK], tl.float32)
        for start in range(0, INPUTS, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = tl.load(x + i, mask=i < INPUTS, other=0.0).to(tl.float32)
            squares += value * value
        inverse = tl.rsqrt(tl.sum(squares, 0) / INPUTS + eps)
    sums = tl.zeros([ROWS, BLOCK // GROUP if BITS == 4 else BLOCK], tl.float32)
    for start in range(0, INPUTS, BLOCK):
        if BITS == 4:  # a byte has an input of each half of a group, which shares scale and zero
            group = start // GROUP + tl.arange(0, BLOCK // GROUP)
            byte = group[:, None] * (GROUP // 2) + tl.arange(0, GROUP // 2)[None, :]
            i4 = byte + group[:, None] * (GROUP // 2)
            in_matrix = is_row[:, None] & (group * GROUP < INPUTS)[None, :]
            q = tl.load(
                w + (first // 2)[:, None, None] + byte[None], mask=in_matrix[:, :, None], other=0
            )
            x1 = _activation(x, norm, i4, inverse, INPUTS, HAS_NORM, IS_GATED)
            x2 = _activation(x, norm, i4 + GROUP // 2, inverse, INPUTS, HAS_NORM, IS_GATED)
            product = (q >> 4).to(tl.float32) * x1[None] + (q & 15).to(tl.float32) * x2[None]
            x_sum = tl.sum(x1 + x2, 1)[None, :]
            pair = scales + (group[None, :] * outputs + rows[:, None]) * 2
            scale = tl.load(pair, mask=in_matrix, other=0.0).to(tl.float32)
            zero = tl.load(pair + 1, mask=in_matrix, other=0.0).to(tl.float32)
            sums += scale * (tl.sum(product, 2) - 8 * x_sum) + zero * x_sum
        else:
            i = start + tl.arange(0, BLOCK)
            in_matrix = is_row[:, None] & (i < INPUTS)[None, :]
            weight = tl.load(w + first[:, None] + i[None, :], mask=in_matrix, other=0)
            value = _activation(x, norm, i, inverse, INPUTS, HAS_NORM, IS_GATED)
            sums += weight.to(tl.float32) * value[None, :]
    total = tl.sum(sums, 1)
    if BITS == 8:
        total *= tl.load(scales + rows, mask=is_row, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        total += tl.load(residual + rows, mask=is_row, other=0.0).to(tl.float32)
    tl.store(y + rows, total, mask=is_row)


@triton.jit
def _matmul(
    x, w, scales, residual, y, B, outputs,
    INPUTS: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_row, is_column = row < B, column < outputs
    x_row = x + row[:, None] * INPUTS
    w_row = w + column.to(tl.int64)[:, None] * (INPUTS * BITS // 8)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, INPUTS, BLOCK):
        if BITS == 4:
            byte = start // 2 + tl.arange(0, BLOCK // 2)
            i4 = (byte + byte // (GROUP // 2) * (GROUP // 2))[None, :]
            is_x = is_row[:, None] & (i4 < INPUTS)
            x1 = tl.load(x_row + i4, mask=is_x, other=0.0)
            x2 = tl.load(x_row + i4 + GROUP // 2, mask=is_x, other=0.0)
            is_w = is_column[:, None] & (2 * byte < INPUTS)[None, :]
            q = tl.load(w_row + byte[None, :], mask=is_w, other=0)
            group = start // GROUP + tl.arange(0, BLOCK // GROUP)
            pair = scales + (group[None, :] * outputs + column[:, None]) * 2
            is_pair = is_column[:, None] & (group * GROUP < INPUTS)[None, :]
            shape: tl.constexpr = [COLUMNS, BLOCK // GROUP, GROUP // 2]
            scale = tl.load(pair, mask=is_pair, other=0.0).to(tl.float32)
            scale = tl.reshape(tl.broadcast_to(scale[:, :, None], shape), [COLUMNS, BLOCK // 2])
            zero = tl.load(pair + 1, mask=is_pair, other=0.0).to(tl.float32)
            zero = tl.reshape(tl.broadcast_to(zero[:, :, None], shape), [COLUMNS, BLOCK // 2])
            w1 = (((q >> 4).to(tl.float32) - 8) * scale + zero).to(x1.dtype)
            w2 = (((q & 15).to(tl.float32) - 8) * scale + zero).to(x2.dtype)
            total = tl.dot(x1, tl.trans(w1), total, input_precision="ieee")
            total = tl.dot(x2, tl.trans(w2), total, input_precision="ieee")
        else:
            i = start + tl.arange(0, BLOCK)
            in_row = (i < INPUTS)[None, :]
            value = tl.load(x_row + i[None, :], mask=is_row[:, None] & in_row, other=0.0)
            q = tl.load(w_row + i[None, :], mask=is_column[:, None] & in_row, other=0)
            total = tl.dot(value, tl.trans(q.to(value.dtype)), total, input_precision="ieee")
    if BITS == 8:
        total *= tl.load(scales + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    place = row[:, None] * outputs + column[None, :]
    is_place = is_row[:, None] & is_column[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + place, mask=is_place, other=0.0).to(tl.float32)
    tl.store(y + place, total, mask=is_place)


@triton.jit
def _attend(
    qkv, cos, sin, positions, k_cache, v_cache, sums, stats,
    position_stride, row_stride, head_stride, scale,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, PARTS: tl.constexpr, TILE: tl.constexpr,
    GROUP: tl.constexpr, HALF: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    row, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(positions + row * position_stride)  # keys in the cache, without the new one
    head, half, whole = tl.arange(0, GROUP), tl.arange(0, HALF), tl.arange(0, WHOLE)
    is_head, is_half, is_whole = head < H // K, half < E // 2, whole < E
    c = tl.load(cos + length * (E // 2) + half, mask=is_half, other=0.0)
    s = tl.load(sin + length * (E // 2) + half, mask=is_half, other=0.0)
    qkv += row * (H + 2 * K) * E
    place = qkv + (kv_head * (H // K) + head)[:, None] * E + half[None, :]
    is_place = is_head[:, None] & is_half[None, :]
    first = tl.load(place, mask=is_place, other=0.0).to(tl.float32)
    second = tl.load(place + E // 2, mask=is_place, other=0.0).to(tl.float32)
    dtype = k_cache.dtype.element_ty
    q1 = (first * c[None, :] - second * s[None, :]).to(dtype)
    q2 = (second * c[None, :] + first * s[None, :]).to(dtype)
    offset = row.to(tl.int64) * row_stride + kv_head * head_stride
    k_cache += offset
    v_cache += offset
    top = tl.full([GROUP], float("-inf"), tl.float32)  # the largest score
    weights = tl.zeros([GROUP], tl.float32)
    total = tl.zeros([GROUP, WHOLE], tl.float32)
    if part == 0:  # the new key: no other program reads it
        new = qkv + (H + kv_head) * E + half
        low = tl.load(new, mask=is_half, other=0.0).to(tl.float32)
        high = tl.load(new + E // 2, mask=is_half, other=0.0).to(tl.float32)
        new_k1 = (low * c - high * s).to(dtype)
        new_k2 = (high * c + low * s).to(dtype)
        new_v = tl.load(qkv + (H + K + kv_head) * E + whole, mask=is_whole, other=0.0)
        tl.store(k_cache + length * E + half, new_k1, mask=is_half)
        tl.store(k_cache + length * E + E // 2 + half, new_k2, mask=is_half)
        tl.store(v_cache + length * E + whole, new_v, mask=is_whole)
        product = q1.to(tl.float32) * new_k1.to(tl.float32)[None, :]
        product += q2.to(tl.float32) * new_k2.to(tl.float32)[None, :]
        top = tl.sum(product, 1) * scale
        weights += 1
        total += new_v.to(tl.float32)[None, :]
    size = tl.cdiv(tl.cdiv(length, PARTS), TILE) * TILE
    stop = tl.minimum(length, (part + 1) * size)
    for start in range(part * size, stop, TILE):
        key = start + tl.arange(0, TILE)
        is_key = key < stop
        at = k_cache + key[:, None] * E + half[None, :]
        is_at = is_key[:, None] & is_half[None, :]
        k1 = tl.load(at, mask=is_at, other=0.0)
        k2 = tl.load(at + E // 2, mask=is_at, other=0.0)
        is_value = is_key[:, None] & is_whole[None, :]
        v = tl.load(v_cache + key[:, None] * E + whole[None, :], mask=is_value, other=0.0)
        scores = tl.dot(q1, tl.trans(k1), input_precision="ieee")
        scores = tl.dot(q2, tl.trans(k2), scores, input_precision="ieee") * scale
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - higher)
        weight = tl.exp(scores - higher[:, None])
        weights = weights * shrink + tl.sum(weight, 1)
        total = total * shrink[:, None]
        total = tl.dot(weight.to(dtype), v, total, input_precision="ieee")
        top = higher
    result = (row * H + kv_head * (H // K) + head) * PARTS + part
    is_result = is_head[:, None] & is_whole[None, :]
    tl.store(sums + result[:, None] * E + whole[None, :], total, mask=is_result)
    tl.store(stats + result * 2, top, mask=is_head)
    tl.store(stats + result * 2 + 1, weights, mask=is_head)


@triton.jit
def _combine(sums, stats, y, E: tl.constexpr, PARTS: tl.constexpr, WHOLE: tl.constexpr):
    head = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    part, whole = head * PARTS + tl.arange(0, PARTS), tl.arange(0, WHOLE)
    top, weights = tl.load(stats + part * 2), tl.load(stats + part * 2 + 1)
    share = tl.exp(top - tl.max(top, 0))  # 0 where a part is empty
    place = sums + part[:, None] * E + whole[None, :]
    total = tl.load(place, mask=(whole < E)[None, :], other=0.0)
    value = tl.sum(total * share[:, None], 0) / tl.sum(weights * share, 0)
    tl.store(y + head * E + whole, value, mask=whole < E)
