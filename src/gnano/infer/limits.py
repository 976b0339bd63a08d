"""Which tokens may come, and how likely is each? Temperature, then top-k, top-p and min-p.

Each of the three keeps a beginning of the order from the likeliest down (of equals, the
lower id first), and top-p counts in what top-k has left. So only as many tokens are put in
order as could be kept: sorting a vocabulary of 50,000 costs more than a small model's token.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gnano.infer.sampling import SamplingParams


def truncated_weights(
    logits_BV: Tensor, params: Sequence[SamplingParams]
) -> tuple[Tensor, Tensor | None]:
    """How likely each token is beside the likeliest, and the ids if they were put in order.

    The likeliest has 1, what is ruled out 0; the second is None where weight i is id i's.
    """
    if logits_BV.device.type not in ("cpu", "cuda"):
        logits_BV = logits_BV.cpu()  # Apple's GPUs have no fp64
    logits_BV = logits_BV.float()
    if not any(s.truncates for s in params):
        return _relative_weights(logits_BV, params), None

    V = logits_BV.shape[1]
    top_ks = [min(s.top_k or V, V) for s in params]
    top_k_B1 = _to_column(top_ks, logits_BV, torch.int64)
    # 1 is out of reach, however the sum is rounded
    shares = [s.top_p if s.top_p < 1 else math.inf for s in params]
    top_p_B1 = _to_column(shares, logits_BV, torch.float64)
    min_p_B1 = _to_column([s.min_p for s in params], logits_BV)

    whole_B1: Tensor | None = None
    if (K := max(top_ks)) == V:  # some row has no top-k: how many could it keep?
        weights_BV = _relative_weights(logits_BV, params)
        whole_B1 = weights_BV.sum(-1, keepdim=True, dtype=torch.float64)
        K = _candidate_count(weights_BV, top_k_B1, top_p_B1 * whole_B1, min_p_B1)
    ids_BK = top_token_ids(logits_BV, K)
    weights_BK = _relative_weights(logits_BV.gather(1, ids_BK), params)
    weights_BK.masked_fill_(torch.arange(K, device=ids_BK.device) >= top_k_B1, 0)
    left_B1 = weights_BK.sum(-1, keepdim=True, dtype=torch.float64)
    if whole_B1 is not None:
        left_B1 = torch.where(top_k_B1 < V, left_B1, whole_B1)
    before_BK = weights_BK.cumsum(-1, dtype=torch.float64) - weights_BK
    out_BK = (before_BK >= top_p_B1 * left_B1) | (weights_BK < min_p_B1)
    return weights_BK.masked_fill_(out_BK, 0), ids_BK


def top_token_ids(logits_BV: Tensor, count: int) -> Tensor:
    """The ids of the largest logits, largest first and of equals the lower id first."""
    found = logits_BV.topk(count)
    # topk does not say which of equals it takes, and in bf16 there are many: so all equals of
    # the last are looked at, in the order of their ids
    last_B1 = found.values[..., -1:]
    wanted = int((logits_BV >= last_B1).sum(-1).max())
    if wanted > count:
        found = logits_BV.topk(wanted)
    ids = found.indices.sort().values
    order = logits_BV.gather(-1, ids).sort(descending=True, stable=True).indices
    return ids.gather(-1, order[..., :count])


def _candidate_count(
    weights_BV: Tensor, top_k_B1: Tensor, share_B1: Tensor, min_p_B1: Tensor
) -> int:
    """A number of likeliest tokens that has all that any row keeps; mostly a few hundred do."""
    V = weights_BV.shape[1]
    for K in (256, 2_048, 16_384):
        if K >= V:
            break
        largest_BK = weights_BV.topk(K, sorted=False).values
        reached_B1 = largest_BK.sum(-1, keepdim=True, dtype=torch.float64)
        last_B1 = largest_BK.amin(-1, keepdim=True)
        if bool(((top_k_B1 <= K) | (reached_B1 >= share_B1) | (last_B1 < min_p_B1)).all()):
            return K
    return V


def _relative_weights(logits_BK: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    # fp32 takes what is much smaller than 1e-30 for 0
    temperature_B1 = _to_column([max(s.temperature, 1e-30) for s in params], logits_BK)
    # relative to the largest, so that no temperature can make them overflow
    return ((logits_BK - logits_BK.amax(-1, keepdim=True)) / temperature_B1).exp()


def _to_column(values: Sequence[float], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]
