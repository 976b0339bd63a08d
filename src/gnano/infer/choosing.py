"""Which token comes next? From logits to one id a row, each row by its own settings.

    logits ─▶ penalties ─▶ ÷ temperature ─▶ top-k ─▶ top-p ─▶ min-p ─▶ draw ─▶ id
              penalties.py └───────────── limits.py ─────────────┘

The order is that of transformers. A token is drawn with one number from the row's own
generator, the share of the probability that lies before it: what else is in the batch
changes no draw.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gnano.infer.limits import truncated_weights
from gnano.infer.penalties import TokenHistory, apply_penalties
from gnano.infer.sampling import SamplingParams


def sample_tokens(
    logits_BV: Tensor,
    params: Sequence[SamplingParams],
    generators: Sequence[torch.Generator],
    histories: Sequence[TokenHistory | None],
) -> list[int]:
    """Draw one token id a row from logits [B, V], each as if alone, in one go on their device."""
    logits_BV = _penalize_rows(logits_BV, params, histories)
    tokens = [0] * len(params)
    greedy = [row for row, s in enumerate(params) if s.temperature == 0]
    drawn = [row for row, s in enumerate(params) if s.temperature > 0]
    limited = [row for row in drawn if params[row].truncates]
    whole = [row for row in drawn if not params[row].truncates]
    for rows in filter(None, (greedy, limited, whole)):
        # of a batch that is all alike no row is copied
        logits_RV = logits_BV if len(rows) == len(params) else logits_BV[rows]
        if rows is greedy:
            ids = logits_RV.argmax(-1).tolist()
        else:
            weights, order = truncated_weights(logits_RV, [params[row] for row in rows])
            places_R1 = _draw_indices(weights, [generators[row] for row in rows])
            ids_R1 = places_R1 if order is None else order.gather(1, places_R1)
            ids = ids_R1[:, 0].tolist()
        for row, token in zip(rows, ids, strict=True):
            tokens[row] = token
    return tokens


def _penalize_rows(
    logits_BV: Tensor, params: Sequence[SamplingParams], histories: Sequence[TokenHistory | None]
) -> Tensor:
    rows = [row for row, s in enumerate(params) if s.needs_history or s.logit_bias]
    if not rows:
        return logits_BV
    logits_BV = logits_BV.to(torch.float32, copy=True)
    for row in rows:
        apply_penalties(logits_BV[row], params[row], histories[row])
    return logits_BV


def _draw_indices(weights_BK: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A place in each row, as often as its weight says: [B, 1]."""
    # not torch.multinomial: it draws a number for every token of the vocabulary
    numbers = [torch.rand((), dtype=torch.float64, generator=g) for g in generators]
    share_B1 = torch.stack(numbers)[:, None].to(weights_BK.device)
    reached_BK = weights_BK.cumsum(-1, dtype=torch.float64)
    total_B1 = reached_BK[:, -1:]
    if not bool(total_B1.isfinite().all()):
        raise ValueError(
            "The model's logits are no finite numbers, so no token can be drawn: its weights "
            "have overflowed or are damaged; take an earlier checkpoint."
        )
    # rounding must not reach the end of the row: the last tokens may be ruled out
    aim_B1 = torch.minimum(share_B1 * total_B1, total_B1.nextafter(total_B1.new_zeros(())))
    return torch.searchsorted(reached_BK, aim_B1, right=True)
