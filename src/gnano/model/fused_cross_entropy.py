"""Fused head and cross-entropy in slices of tokens, so that full logits never exist.

The logits of 8 × 1,024 tokens over 50,257 entries take 1.6 GB in fp32, and their gradient as much.
Here each slice goes through the head, yields its loss and gradients, and is dropped:

    x_ND ──slice──▶ logits ──▶ nats, softmax − one-hot ──▶ grad x (slice), grad weight (sum)

Nothing is computed twice: the loss is a sum, so its gradient is known up to one factor, which
backward multiplies in (as in Liger Kernel's fused linear cross-entropy,
https://arxiv.org/abs/2410.10989).

A loss whose weights depend on the nats of all positions, as with preferences, takes two passes
(`head_loss`): `token_nll` for the loss function, then `fused_linear_cross_entropy` with the weights
it returned.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100  # target of positions without a loss
# fp32 logits of a slice: on a CPU they stay in the last-level cache between passes; on a GPU they
# are so large that summing the weight's gradient costs little compared with the products
CPU_SLICE_BYTES, GPU_SLICE_BYTES = 16 * 2**20, 2 * 2**30

# nats of all positions [B, T], fp32 -> loss (no dimensions) and its gradient by them [B, T]
LossFn = Callable[[Tensor], tuple[Tensor, Tensor]]


def head_loss(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_BT: Tensor,
    vocab_size: int,
    loss_fn: LossFn | None = None,
    use_compiled: bool = False,
) -> Tensor:
    """Return the loss of `GPT.loss` from the final hidden states and the head's weight."""
    head = x_ND, weight_VD, targets_BT.flatten(), vocab_size
    if loss_fn is None:
        return fused_linear_cross_entropy(*head, use_compiled)
    value, grads_BT = loss_fn(token_nll(*head).view_as(targets_BT))
    if not torch.is_grad_enabled():
        return value
    weighted = fused_linear_cross_entropy(*head, use_compiled, grads_BT.flatten())
    # the exact value, with the gradient of the weighted sum
    return value + (weighted - weighted.detach())


def fused_linear_cross_entropy(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    use_compiled: bool = False,
    scale_N: Tensor | None = None,
) -> Tensor:
    """Return the summed cross-entropy in nats, fp32, without dimensions.

    `x_ND` are the final hidden states in the compute dtype. Rows of `weight_VD` from `vocab_size`
    on are padding and have no effect; neither do targets equal to `IGNORE_INDEX`. `use_compiled`
    fuses the operations between the products where gradients are needed. `scale_N` (fp32)
    multiplies the nats of each position.
    """
    size = _slice_size(x_ND, weight_VD)
    if x_ND.device.type == "cpu":  # on a GPU the count would have to be waited for
        kept = _valid_positions(targets_N, size)
        if len(kept) < len(targets_N):
            x_ND, targets_N = x_ND.index_select(0, kept), targets_N[kept]
            scale_N = None if scale_N is None else scale_N[kept]
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        loss: Tensor = _FusedLinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            x_ND, weight_VD, targets_N, vocab_size, size, use_compiled, scale_N
        )
        return loss
    total = x_ND.new_zeros((), dtype=torch.float32)
    weight_VD = weight_VD.to(x_ND.dtype)
    reduction = "sum" if scale_N is None else "none"
    for start in range(0, len(x_ND), size):
        rows = slice(start, start + size)
        _, nats = _slice_nll(x_ND[rows], weight_VD, targets_N[rows], vocab_size, reduction)
        total += nats if scale_N is None else (nats * scale_N[rows]).sum()
    return total


@torch.no_grad()
def token_nll(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int) -> Tensor:
    """Return the cross-entropy of each position [N], in nats, fp32, without gradient."""
    weight_VD, size = weight_VD.to(x_ND.dtype), _slice_size(x_ND, weight_VD)
    nats_N = torch.empty_like(targets_N, dtype=torch.float32)
    for start in range(0, len(x_ND), size):
        rows = slice(start, start + size)
        _, nats_N[rows] = _slice_nll(x_ND[rows], weight_VD, targets_N[rows], vocab_size, "none")
    return nats_N


class _FusedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        vocab_size: int,
        size: int,
        compiled: bool,
        scale_N: Tensor | None,
    ) -> Tensor:
        total = x_ND.new_zeros((), dtype=torch.float32)
        cast_VD = weight_VD.to(x_ND.dtype)
        # frozen tensors cost neither products nor memory
        grad_x_ND = torch.empty_like(x_ND) if x_ND.requires_grad else None
        grad_weight_VD = None
        if weight_VD.requires_grad:
            # fp32 even for a bf16 weight, as from FSDP, since many slices are summed
            grad_dtype = torch.promote_types(weight_VD.dtype, torch.float32)
            grad_weight_VD = torch.zeros_like(weight_VD, dtype=grad_dtype)
        step = _compiled_slice_loss_and_grad() if compiled else _slice_loss_and_grad
        for start in range(0, len(x_ND), size):
            rows = slice(start, start + size)
            step(
                x_ND[rows],
                cast_VD,
                targets_N[rows],
                vocab_size,
                total,
                None if grad_x_ND is None else grad_x_ND[rows],
                grad_weight_VD,
                None if scale_N is None else scale_N[rows],
            )
        ctx.save_for_backward(grad_x_ND, grad_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x_ND, grad_weight_VD = ctx.saved_tensors
        # without dimensions the factor is not rounded, and the products keep their dtypes
        to_x = None if grad_x_ND is None else grad_x_ND * grad
        to_weight = None if grad_weight_VD is None else (grad_weight_VD * grad).to(ctx.weight_dtype)
        return to_x, to_weight, None, None, None, None, None


def _slice_loss_and_grad(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    total: Tensor,
    grad_x_ND: Tensor | None,
    grad_weight_VD: Tensor | None,
    scale_N: Tensor | None,
) -> None:
    """Add the loss and weight gradient of one slice to the totals, and write that of x."""
    reduction = "sum" if scale_N is None else "none"
    log_probs_NV, nats = _slice_nll(x_ND, weight_VD, targets_N, vocab_size, reduction)
    total += nats if scale_N is None else (nats * scale_N).sum()
    columns = torch.arange(len(weight_VD), dtype=torch.int32, device=x_ND.device)
    hit_NV = columns == targets_N[:, None].int()
    grad_NV = (log_probs_NV.exp() - hit_NV.float()).to(x_ND.dtype)
    # ignored rows are masked where they are D wide, not V
    counts_N1 = (targets_N != IGNORE_INDEX)[:, None].to(x_ND.dtype)
    if scale_N is not None:
        counts_N1 = counts_N1 * scale_N[:, None]  # fp32: in bf16 a scale is wrong by up to 0.4 %
    if grad_x_ND is not None:
        grad_x_ND.copy_((grad_NV @ weight_VD) * counts_N1)
    if grad_weight_VD is not None:
        counted_ND = (x_ND * counts_N1).to(x_ND.dtype)
        grad_weight_VD += multiply_into(grad_NV.T, counted_ND, grad_weight_VD.dtype)


@cache
def _compiled_slice_loss_and_grad() -> Callable[..., None]:
    return torch.compile(_slice_loss_and_grad, fullgraph=True)


def _slice_nll(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int, reduction: str
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [N, V] in fp32 (-inf for padding), and the nats (`F.nll_loss`)."""
    logits_NV = F.linear(x_ND, weight_VD).float()
    if vocab_size < len(weight_VD):
        columns = torch.arange(len(weight_VD), dtype=torch.int32, device=x_ND.device)
        logits_NV = logits_NV.masked_fill(columns >= vocab_size, -torch.inf)
    log_probs_NV = logits_NV.log_softmax(-1)
    nats = F.nll_loss(log_probs_NV, targets_N, ignore_index=IGNORE_INDEX, reduction=reduction)
    return log_probs_NV, nats


def multiply_into(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a @ b in a wider dtype, on an NVIDIA GPU without rounding it to that of a and b."""
    if a.device.type == "cuda" and a.dtype != dtype and torch.version.hip is None:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


def _valid_positions(targets_N: Tensor, slice_size: int) -> Tensor:
    """Return the positions with a loss, and as many others as fill their last slice.

    Prompts and padding are more than half of the tokens in fine-tuning, and in a small model the
    head is most of the work. The remaining slices all have the same size.
    """
    is_ignored_N = targets_N == IGNORE_INDEX
    number = -(-int((~is_ignored_N).sum()) // slice_size)
    return is_ignored_N.argsort(stable=True)[: number * slice_size]


def _slice_size(x_ND: Tensor, weight_VD: Tensor) -> int:
    """Return the rows per slice, even across slices, since a compiled slice has one size."""
    tokens, allowed = len(x_ND), CPU_SLICE_BYTES if x_ND.device.type == "cpu" else GPU_SLICE_BYTES
    number = -(-tokens // max(1, allowed // (4 * len(weight_VD))))
    return max(1, -(-tokens // max(1, number)))
