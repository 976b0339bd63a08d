"""How wrong is each guess? Head and cross-entropy in slices, so full logits never exist.

The logits of 8 × 1,024 tokens over 50,257 entries are 1.6 GB in fp32, and their gradient as
much again. Here a slice of tokens goes through the head, gives its loss and at once its
gradients, and is forgotten:

    x_ND ──slice──▶ logits ──▶ nats, softmax − one-hot ──▶ grad x (slice), grad weight (sum)

Nothing is computed twice: the loss is a sum, so its gradient is known up to one factor,
which backward multiplies in. (The idea is that of Liger Kernel's fused linear
cross-entropy, https://arxiv.org/abs/2410.10989.)

A loss that weighs the positions by how wrong all of them are, as of preferences, takes two
passes: `head_nats` for a score to look at, then `head_loss` with the weights it gave.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100  # target of a position that does not count
# fp32 logits of a slice. On a CPU it stays in the last-level cache from one pass to the next; on
# a GPU it is large enough that adding up the weight's gradient costs little beside the products
CPU_SLICE_BYTES, GPU_SLICE_BYTES = 16 * 2**20, 512 * 2**20


# the nats of all positions [B, T], fp32 -> a loss (no dimensions) and its derivative by each [B, T]
LossFn = Callable[[Tensor], tuple[Tensor, Tensor]]


def fused_linear_cross_entropy(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    use_compiled: bool = False,
    scale_N: Tensor | None = None,
) -> Tensor:
    """Sum of the cross-entropy over the positions that count, in nats, fp32, no dimensions.

    `x_ND` are the final hidden states in the compute dtype; `weight_VD` may have more rows
    than `vocab_size` (padding), which take part in nothing; targets equal to `IGNORE`
    count nothing. `compiled` fuses what lies between the products, where gradients are asked.
    With `scale_N` (fp32) each position's nats are multiplied by its number.
    """
    size = _slice_size(x_ND, weight_VD)
    if x_ND.device.type == "cpu":  # a GPU would have to be waited for
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
    for rows in _row_slices(x_ND, size):
        total += _slice_nll(
            x_ND[rows], weight_VD, targets_N[rows], vocab_size, _select_rows(scale_N, rows)
        )[1]
    return total


@torch.no_grad()
def token_nll(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int) -> Tensor:
    """The cross-entropy of each position [N], in nats, fp32, without gradient; 0 at `IGNORE`."""
    weight_VD = weight_VD.to(x_ND.dtype)
    nats_N = torch.empty_like(targets_N, dtype=torch.float32)
    for rows in _row_slices(x_ND, _slice_size(x_ND, weight_VD)):
        log_probs_NV = _log_probs(x_ND[rows], weight_VD, vocab_size)
        nats_N[rows] = _target_nll(log_probs_NV, targets_N[rows])
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
        # what is frozen costs nothing: neither its product nor its memory
        grad_x_ND = torch.empty_like(x_ND) if x_ND.requires_grad else None
        grad_weight_VD = None
        if weight_VD.requires_grad:
            # fp32 also where the weight itself comes in bf16, as from FSDP: many slices add up
            grad_weight_VD = torch.zeros_like(
                weight_VD, dtype=torch.promote_types(weight_VD.dtype, torch.float32)
            )
        step = _compiled_slice_loss_and_grad() if compiled else _slice_loss_and_grad
        for rows in _row_slices(x_ND, size):
            step(
                x_ND[rows],
                cast_VD,
                targets_N[rows],
                vocab_size,
                total,
                _select_rows(grad_x_ND, rows),
                grad_weight_VD,
                _select_rows(scale_N, rows),
            )
        ctx.save_for_backward(grad_x_ND, grad_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x_ND, grad_weight_VD = ctx.saved_tensors
        # the factor has no dimensions, so the products keep their dtypes and it is not rounded
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
    """One slice: adds its loss and its part of the weight's gradient, writes that of x."""
    log_probs_NV, nats = _slice_nll(x_ND, weight_VD, targets_N, vocab_size, scale_N)
    total += nats
    columns = torch.arange(len(weight_VD), dtype=torch.int32, device=x_ND.device)
    hit_NV = columns == targets_N[:, None].int()
    grad_NV = (log_probs_NV.exp() - hit_NV.float()).to(x_ND.dtype)
    # ignored rows are masked where they are D wide, not V
    counts_N1 = (targets_N != IGNORE_INDEX)[:, None].to(x_ND.dtype)
    if scale_N is not None:
        counts_N1 = counts_N1 * scale_N[:, None]  # fp32: a scale in bf16 is off by up to 0.4 %
    if grad_x_ND is not None:
        grad_x_ND.copy_((grad_NV @ weight_VD) * counts_N1)
    if grad_weight_VD is not None:
        grad_weight_VD += grad_NV.T @ (x_ND * counts_N1).to(x_ND.dtype)


@cache
def _compiled_slice_loss_and_grad() -> Callable[..., None]:
    return torch.compile(_slice_loss_and_grad, fullgraph=True)


def _slice_nll(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int, scale_N: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, V] as below, and the sum of the nats."""
    log_probs_NV = _log_probs(x_ND, weight_VD, vocab_size)
    if scale_N is not None:
        return log_probs_NV, (_target_nll(log_probs_NV, targets_N) * scale_N).sum()
    return log_probs_NV, F.nll_loss(
        log_probs_NV, targets_N, ignore_index=IGNORE_INDEX, reduction="sum"
    )


def _log_probs(x_ND: Tensor, weight_VD: Tensor, vocab_size: int) -> Tensor:
    """Log-probabilities [N, V] in fp32, -inf for the padding."""
    logits_NV = F.linear(x_ND, weight_VD).float()
    if vocab_size < len(weight_VD):
        columns = torch.arange(len(weight_VD), dtype=torch.int32, device=x_ND.device)
        logits_NV = logits_NV.masked_fill(columns >= vocab_size, -torch.inf)
    return logits_NV.log_softmax(-1)


def _target_nll(log_probs_NV: Tensor, targets_N: Tensor) -> Tensor:
    return F.nll_loss(log_probs_NV, targets_N, ignore_index=IGNORE_INDEX, reduction="none")


def _select_rows(tensor: Tensor | None, rows: slice) -> Tensor | None:
    return None if tensor is None else tensor[rows]


def _valid_positions(targets_N: Tensor, slice_size: int) -> Tensor:
    """Those positions that count, and as many others as fill their last slice.

    Prompts and padding are more than half of what a model is tuned on, and in a small model the
    head is most of the work. Whole slices go, so that those that stay are all of one size.
    """
    number = -(-int((targets_N != IGNORE_INDEX).sum()) // slice_size)
    return (targets_N == IGNORE_INDEX).argsort(stable=True)[: number * slice_size]


def _slice_size(x_ND: Tensor, weight_VD: Tensor) -> int:
    """Rows of a slice: as many as memory allows, and even: a compiled slice has one size."""
    tokens, allowed = len(x_ND), CPU_SLICE_BYTES if x_ND.device.type == "cpu" else GPU_SLICE_BYTES
    number = -(-tokens // max(1, allowed // (4 * len(weight_VD))))
    return max(1, -(-tokens // max(1, number)))


def _row_slices(x_ND: Tensor, slice_size: int) -> list[slice]:
    return [slice(start, start + slice_size) for start in range(0, len(x_ND), slice_size)]
