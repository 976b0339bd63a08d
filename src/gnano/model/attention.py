"""Who sees whom? Softmax attention: causal, and within one document where rows hold several.

one document a row       two, as segments 0 0 0 1 1       a beginning and two branches, 0 0 1 1 2
×                        ×                                ×
× ×                      × ×                              × ×
× × ×                    × × ×                            × × ×
× × × ×                        ×                          × × × ×
× × × × ×                      × ×                        × ×     ×
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.model.short_attention import CPU_ATTENTION_MAX_LENGTH, cpu_attention


def attend(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Softmax attention of the last T positions over all so far; each sees up to itself.

    A `mask` [B, 1, T, so far] says instead what each position sees (True: this one).
    """
    T, so_far = q_BHTE.shape[2], k_BKTE.shape[2]
    if (
        torch.compiler.is_compiling()
        and q_BHTE.device.type == "cpu"
        and q_BHTE.dtype == torch.bfloat16  # in fp32 it is no faster
        and not dropout
        and 1 < T == so_far <= CPU_ATTENTION_MAX_LENGTH
    ):
        return cpu_attention(q_BHTE, k_BKTE, v_BKTE, mask)
    group = q_BHTE.shape[1] // k_BKTE.shape[1]
    if T == 1 and so_far > 1 and not dropout:
        # a group's queries see the same: as rows of one product its keys are read once, uncopied
        q_BKGE = q_BHTE.reshape(*k_BKTE.shape[:2], group, -1)
        y_BKGE = F.scaled_dot_product_attention(q_BKGE, k_BKTE, v_BKTE, attn_mask=mask)
        return y_BKGE.flatten(1, 2)[:, :, None]
    if mask is not None:
        # the one fused CUDA kernel that takes a mask on every GPU takes no grouped heads, and
        # what PyTorch falls back to writes out all [B, H, T, T] scores: the copies are smaller
        k_BKTE, v_BKTE = (x.repeat_interleave(group, dim=1) for x in (k_BKTE, v_BKTE))
    elif 1 < T < so_far:  # SDPA's own causal mask is aligned to the first position
        mask = torch.ones(T, so_far, dtype=torch.bool, device=q_BHTE.device).tril(so_far - T)
    causal = mask is None
    if T == 1:  # asked as a question of its own: a compiled size is no plain bool
        causal = False
    # enable_gqa: the kernels read each key/value head once for its group, without a copy
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKTE,
        v_BKTE,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        enable_gqa=q_BHTE.shape[1] != k_BKTE.shape[1],
    )


def ragged_causal_mask(positions_BT: Tensor, kv_len: int) -> Tensor:
    """What the new positions of rows of different lengths see, [B, 1, T, end]: up to themselves."""
    return (torch.arange(kv_len, device=positions_BT.device) <= positions_BT[..., None])[:, None]


class PrefixTree(NamedTuple):
    """What rows consist of that hold several continuations of one beginning."""

    branch_ids_BT: Tensor  # of the branch that each position is in; 0: of the beginning
    positions_BT: Tensor  # its place in its own text, from 0


def prefix_tree_mask(branch_ids_BT: Tensor, past_len: int = 0) -> Tensor:
    """What each position sees, [B, 1, T, past + T]: its row's beginning and its own branch."""
    B, T = branch_ids_BT.shape
    one_B1T, each_BT1 = branch_ids_BT[:, None, :], branch_ids_BT[:, :, None]
    seen_BTT = ((one_B1T == 0) | (one_B1T == each_BT1)).tril()
    return torch.cat([seen_BTT.new_ones(B, T, past_len), seen_BTT], dim=-1)[:, None]


def document_mask(document_ids_BT: Tensor) -> Tensor:
    """What each position sees, [B, 1, T, T]: itself and what came before in its segment."""
    same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    return same_BTT.tril()[:, None]
