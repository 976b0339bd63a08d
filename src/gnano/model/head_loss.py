"""How wrong is each guess? Head and cross-entropy in slices, so full logits never exist.

The logits of 8 × 1,024 tokens over 50,257 entries are 1.6 GB in fp32, and their gradient as
much again. Here a slice of tokens goes through the head, gives its loss and at once its
gradients, and is forgotten:

    x_ND ──slice──▶ logits ──▶ nats, softmax − one-hot ──▶ grad x (slice), grad weight (sum)

Nothing is computed twice: the loss is a sum, so its gradient is known up to one factor,
which backward multiplies in. (The idea is that of Liger Kernel's fused linear
cross-entropy, https://arxiv.org/abs/2410.10989.)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100  # target of a position that does not count
SLICE_BYTES = 64 * 2**20  # fp32 logits held at a time: fits the caches' reach, keeps GPUs busy


def head_loss(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int) -> Tensor:
    """Sum of the cross-entropy over the positions that count, in nats, fp32, no dimensions.

    `x_ND` are the final hidden states in the compute dtype; `weight_VD` may have more rows
    than `vocab_size` (padding), which take part in nothing; targets equal to `IGNORE`
    count nothing.
    """
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        loss: Tensor = _HeadLoss.apply(x_ND, weight_VD, targets_N, vocab_size)  # type: ignore[no-untyped-call]
        return loss
    total = x_ND.new_zeros((), dtype=torch.float32)
    weight_VD = weight_VD.to(x_ND.dtype)
    for rows in _slices(len(x_ND), len(weight_VD)):
        _, nats = _slice_loss(x_ND[rows], weight_VD, targets_N[rows], vocab_size)
        total += nats.sum()
    return total


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int
    ) -> Tensor:
        total = x_ND.new_zeros((), dtype=torch.float32)
        cast_VD = weight_VD.to(x_ND.dtype)
        grad_x_ND = torch.empty_like(x_ND)
        grad_weight_VD = torch.zeros_like(weight_VD)
        for rows in _slices(len(x_ND), len(weight_VD)):
            targets = targets_N[rows]
            log_probs, nats = _slice_loss(x_ND[rows], cast_VD, targets, vocab_size)
            total += nats.sum()
            grad = log_probs.exp_()
            grad.scatter_add_(1, targets.clamp_min(0)[:, None], -torch.ones_like(grad[:, :1]))
            grad = grad.to(x_ND.dtype)
            # ignored rows are masked where they are D wide, not V
            counts = (targets != IGNORE)[:, None].to(x_ND.dtype)
            torch.mm(grad, cast_VD, out=grad_x_ND[rows])
            grad_x_ND[rows] *= counts
            grad_weight_VD += grad.T @ (x_ND[rows] * counts)
        ctx.save_for_backward(grad_x_ND, grad_weight_VD)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x_ND, grad_weight_VD = ctx.saved_tensors
        # the factor has no dimensions, so the products keep their dtypes and it is not rounded
        return grad_x_ND * grad, grad_weight_VD * grad, None, None


def _slice_loss(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, V] in fp32, -inf for the padding, and nats [N], 0 where ignored."""
    logits = F.linear(x_ND, weight_VD).float()
    logits[:, vocab_size:] = -torch.inf
    log_probs = logits.log_softmax(-1)
    return log_probs, F.nll_loss(log_probs, targets_N, ignore_index=IGNORE, reduction="none")


def _slices(tokens: int, vocab: int) -> list[slice]:
    step = max(1, SLICE_BYTES // (4 * vocab))
    return [slice(start, start + step) for start in range(0, tokens, step)]
