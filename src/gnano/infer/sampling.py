"""Sampling: from logits to one token id per row, with per-row settings, and log-probabilities.

    logits ─▶ bias and penalties ─▶ ÷ temperature ─▶ top-k ─▶ top-p ─▶ min-p ─▶ draw ─▶ id

The order is that of transformers. Bias and penalties apply to the model's own logits:

    logit bias           + the value given for an id
    repetition penalty   ÷ where positive, × where negative; ids of prompt and answer
    frequency, presence  − per occurrence, − once if it occurs; ids of the answer only
    no-repeat            −inf for ids that would repeat an n-gram

Bias, repetition and no-repeat are those of transformers (`sequence_bias`, `repetition_penalty`,
`no_repeat_ngram_size`), frequency and presence those of OpenAI's API. A `TokenHistory` grows with
the text, so that a step costs as much as there are distinct tokens; rows without penalties have
none.

Top-k, top-p and min-p each keep the likeliest tokens (of equal ones the lower id first), and
top-p counts only what top-k left. Only as many tokens are sorted as could be kept: sorting a
vocabulary of 50,000 takes longer than a token of a small model.

A token is drawn with one number from the row's own generator, as the share of probability before
it, so other rows of the batch change no draw. Log-probabilities are those of the model's own
logits: they state what the model predicts, not how a token was drawn.
"""

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gnano.config.inference_config import SamplingParams
from gnano.utils.validation import Range, check_number


def truncated_weights(
    logits_BV: Tensor, params: Sequence[SamplingParams]
) -> tuple[Tensor, Tensor | None]:
    """Return weights relative to the likeliest token (1; excluded tokens 0), and their ids.

    The ids are None where weight i belongs to id i.
    """
    if logits_BV.device.type not in ("cpu", "cuda"):
        logits_BV = logits_BV.cpu()  # Apple's GPUs have no fp64
    logits_BV = logits_BV.float()
    V = logits_BV.shape[1]
    limits_B4 = torch.tensor(list(map(_limits, params)), dtype=torch.float64)
    temperature_B1, top_k_B1, top_p_B1, min_p_B1 = _split_limits(limits_B4.to(logits_BV.device))
    if not any(s.truncates for s in params):
        return _relative_weights(logits_BV, temperature_B1), None

    total_B1: Tensor | None = None
    if (K := min(V, max(s.top_k or V for s in params))) == V:  # some row has no top-k
        weights_BV = _relative_weights(logits_BV, temperature_B1)
        total_B1 = weights_BV.sum(-1, keepdim=True, dtype=torch.float64)
        # as many of the likeliest tokens as include all that any row keeps: mostly 256
        for K in [n for n in (256, 2_048, 16_384) if n < V]:
            largest_BK = weights_BV.topk(K, sorted=False).values
            reached_B1 = largest_BK.sum(-1, keepdim=True, dtype=torch.float64)
            is_enough_B1 = (top_k_B1 <= K) | (reached_B1 >= top_p_B1 * total_B1)
            if bool((is_enough_B1 | (largest_BK.amin(-1, keepdim=True) < min_p_B1)).all()):
                break
        else:
            K = V
    ids_BK = top_token_ids(logits_BV, K)
    weights_BK = _relative_weights(logits_BV.gather(1, ids_BK), temperature_B1)
    if total_B1 is not None:
        total_B1 = torch.where(top_k_B1 < V, 0, total_B1)
    return _truncate(weights_BK, top_k_B1, top_p_B1, min_p_B1, total_B1), ids_BK


def _truncate(
    weights_BK: Tensor,
    top_k_B1: Tensor,
    top_p_B1: Tensor,
    min_p_B1: Tensor,
    total_B1: Tensor | None = None,
) -> Tensor:
    """Set the weights that are excluded to 0, in place; the weights are in descending order.

    Where it is not 0, `total_B1` is what top-p is a share of: weights that are not here count too.
    """
    ranks_K = torch.arange(weights_BK.shape[1], device=weights_BK.device)
    weights_BK.masked_fill_(ranks_K >= top_k_B1, 0)
    left_B1 = weights_BK.sum(-1, keepdim=True, dtype=torch.float64)
    if total_B1 is not None:
        left_B1 = torch.where(total_B1 > 0, total_B1, left_B1)
    before_BK = weights_BK.cumsum(-1, dtype=torch.float64) - weights_BK
    out_BK = (before_BK >= top_p_B1 * left_B1) | (weights_BK < min_p_B1)
    return weights_BK.masked_fill_(out_BK, 0)


def _limits(s: SamplingParams) -> tuple[float, float, float, float]:
    # a rounded sum must not reach a top-p of 1
    top_p = s.top_p if s.top_p < 1 else math.inf
    return s.temperature, s.top_k or math.inf, top_p, s.min_p


def _split_limits(limits_B4: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    temperature_B1, top_k_B1, top_p_B1, min_p_B1 = torch.split(limits_B4, 1, dim=1)
    # much smaller temperatures are 0 in fp32
    return temperature_B1.clamp_min(1e-30).float(), top_k_B1, top_p_B1, min_p_B1.float()


def _relative_weights(logits_BK: Tensor, temperature_B1: Tensor) -> Tensor:
    # relative to the largest, so that no temperature causes an overflow
    return ((logits_BK - logits_BK.amax(-1, keepdim=True)) / temperature_B1).exp()


def top_token_ids(logits_BV: Tensor, count: int) -> Tensor:
    """Return the ids of the largest logits, descending; of equal ones the lower id first."""
    found = logits_BV.topk(count)
    # topk picks arbitrarily among equal values, which are frequent in bf16: take all that equal
    # the last, and sort them by id
    last_B1 = found.values[..., -1:]
    num_candidates = int((logits_BV >= last_B1).sum(-1).max())
    if num_candidates > count:
        found = logits_BV.topk(num_candidates)
    ids = found.indices.sort().values
    order = logits_BV.gather(-1, ids).sort(descending=True, stable=True).indices
    return ids.gather(-1, order[..., :count])


class TokenHistory:
    """The ids of a prompt and its answer so far, in the form that penalties need."""

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams) -> None:
        self.seen_ids: set[int] = set(prompt)
        self.output_counts: dict[int, int] = {}  # id -> its occurrences in the answer
        self.ngram_size = sampling.no_repeat_ngram_size  # 0: no n-grams are recorded
        # first n - 1 ids -> the last ones
        self.next_ids_by_prefix: dict[tuple[int, ...], set[int]] = {}
        self.recent_ids: deque[int] = deque(maxlen=max(0, self.ngram_size - 1))
        for token in prompt if self.ngram_size else ():
            self._record_ngram(token)

    def add(self, token: int) -> None:
        """Add a token of the answer."""
        self.seen_ids.add(token)
        self.output_counts[token] = self.output_counts.get(token, 0) + 1
        if self.ngram_size:
            self._record_ngram(token)

    def _record_ngram(self, token: int) -> None:
        if len(self.recent_ids) == self.ngram_size - 1:
            self.next_ids_by_prefix.setdefault(tuple(self.recent_ids), set()).add(token)
        self.recent_ids.append(token)


def apply_penalties(
    logits_V: Tensor, sampling: SamplingParams, history: TokenHistory | None
) -> None:
    """Apply bias, penalties and no-repeat to fp32 logits [V] in place."""
    if sampling.logit_bias:
        biased_ids, biases = zip(*sampling.logit_bias, strict=True)
        logits_V[_index_tensor(biased_ids, logits_V)] += torch.tensor(
            biases, device=logits_V.device
        )
    if history is None:
        return
    if sampling.repetition_penalty != 1 and history.seen_ids:
        ids = _index_tensor(history.seen_ids, logits_V)
        logit = logits_V[ids]
        penalty = sampling.repetition_penalty
        logits_V[ids] = torch.where(logit < 0, logit * penalty, logit / penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and history.output_counts:
        ids = _index_tensor(history.output_counts, logits_V)
        counts = torch.tensor(list(history.output_counts.values()), dtype=torch.float32)
        penalty_N = sampling.frequency_penalty * counts + sampling.presence_penalty
        logits_V[ids] -= penalty_N.to(logits_V.device)
    if sampling.no_repeat_ngram_size:
        # the ids that would complete an n-gram for the second time; if all would, none is banned
        banned = history.next_ids_by_prefix.get(tuple(history.recent_ids), set())
        if 0 < len(banned) < len(logits_V):
            logits_V[_index_tensor(banned, logits_V)] = -torch.inf


def _index_tensor(tokens: Collection[int], logits_V: Tensor) -> Tensor:
    """Return distinct ids as an index; several times as fast as torch.tensor of a list."""
    return torch.from_numpy(np.fromiter(tokens, np.int64, len(tokens))).to(logits_V.device)


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token and of the likeliest alternatives."""

    token_id: int
    logprob: float  # natural logarithm, at most 0
    top_logprobs: tuple[tuple[int, float], ...] = ()  # (id, log-probability), likeliest first


def compute_logprobs(
    logits_NV: Tensor, token_ids: Sequence[int], num_top: int = 0
) -> list[TokenLogprob]:
    """Return log-probabilities of one token per row, and of the `num_top` likeliest of each row."""
    check_number("top", num_top, Range(0))
    log_NV = logits_NV.float().log_softmax(-1)
    rows = range(len(token_ids))
    own = log_NV[rows, token_ids].tolist()
    if not num_top:
        return [TokenLogprob(*pair) for pair in zip(token_ids, own, strict=True)]
    top_NK = top_token_ids(log_NV, min(num_top, log_NV.shape[1]))
    tops = zip(top_NK.tolist(), log_NV.gather(1, top_NK).tolist(), strict=True)
    return [
        TokenLogprob(token, value, tuple(zip(*top, strict=True)))
        for token, value, top in zip(token_ids, own, tops, strict=True)
    ]


def sample_tokens(
    logits_BV: Tensor,
    params: Sequence[SamplingParams],
    generators: Sequence[torch.Generator],
    histories: Sequence[TokenHistory | None],
) -> list[int | None]:
    """Draw one token id per row from logits [B, V]; rows do not affect each other.

    Only penalties need a history. The id of a row is None if its logits are not finite.
    """
    is_finite = logits_BV.isfinite().all(-1).tolist()
    changed = [row for row, s in enumerate(params) if s.logit_bias or histories[row]]
    if changed:
        logits_BV = logits_BV.to(torch.float32, copy=True)
        for row in changed:
            apply_penalties(logits_BV[row], params[row], histories[row])
    tokens: list[int | None] = [None] * len(params)
    if logits_BV.is_cuda:  # each question to a GPU waits for it, and steps draw in the same way
        settings = list(map(draw_settings, params, generators))
        settings_B5 = torch.tensor(settings, dtype=torch.float64).to(logits_BV.device)
        ids = draw_tokens(logits_BV, settings_B5, draw_mode(params)).tolist()
        return [token if ok else None for token, ok in zip(ids, is_finite, strict=True)]
    greedy = [row for row, s in enumerate(params) if is_finite[row] and s.temperature == 0]
    drawn = [row for row, s in enumerate(params) if is_finite[row] and s.temperature > 0]
    limited = [row for row in drawn if params[row].truncates]
    unlimited = [row for row in drawn if not params[row].truncates]
    for rows in filter(None, (greedy, limited, unlimited)):
        # a uniform batch is not copied
        logits_RV = logits_BV if len(rows) == len(params) else logits_BV[rows]
        if rows is greedy:
            ids_R = logits_RV.argmax(-1)
        else:
            weights_RK, order_RK = truncated_weights(logits_RV, [params[row] for row in rows])
            share_R1 = torch.stack([_draw_share(generators[row]) for row in rows])[:, None]
            index_R1 = _find_share(weights_RK, share_R1.to(weights_RK.device))
            ids_R = (index_R1 if order_RK is None else order_RK.gather(1, index_R1))[:, 0]
        for row, token in zip(rows, ids_R.tolist(), strict=True):
            tokens[row] = token
    return tokens


def _draw_share(generator: torch.Generator) -> Tensor:
    # torch.multinomial would draw a number for every token of the vocabulary
    return torch.rand((), dtype=torch.float64, generator=generator)


def _find_share(weights_RK: Tensor, share_R1: Tensor) -> Tensor:
    """Return the index [R, 1] of the weight that begins at or before this share of all weights."""
    reached_RK = weights_RK.cumsum(-1, dtype=torch.float64)
    total_R1 = reached_RK[:, -1:]
    # rounding must not reach the end of the row, where tokens may be excluded
    below_R1 = total_R1.nextafter(total_R1.new_zeros(()))
    return torch.searchsorted(reached_RK, torch.minimum(share_R1 * total_R1, below_R1), right=True)


# what some row needs: the argmax, a temperature, or top-k, top-p or min-p
DrawMode = Literal["greedy", "plain", "truncated"]


def draw_mode(params: Sequence[SamplingParams]) -> DrawMode:
    """Return the mode of `draw_tokens` that all these rows can use."""
    drawn = [s for s in params if s.temperature > 0]
    if not drawn:
        return "greedy"
    return "truncated" if any(s.truncates for s in drawn) else "plain"


def draw_settings(params: SamplingParams, generator: torch.Generator) -> tuple[float, ...]:
    """Return a row of what `draw_tokens` needs; advances the generator as `sample_tokens` does."""
    share = float(_draw_share(generator)) if params.temperature > 0 else 0.0
    return share, *_limits(params)


def draw_tokens(logits_BV: Tensor, settings_B5: Tensor, mode: DrawMode) -> Tensor:
    """Return the ids [B] that `sample_tokens` draws without penalties, without waiting for a GPU.

    `settings_B5` (fp64) has the `draw_settings` of each row. Every token is sorted, because how
    many would do is not known before. Logits that are not finite give some id.
    """
    logits_BV, ids_B1 = logits_BV.float(), logits_BV.argmax(-1, keepdim=True)
    if mode == "greedy":
        return ids_B1[:, 0]
    share_B1, limits_B4 = torch.split(settings_B5, [1, 4], dim=1)
    temperature_B1, top_k_B1, top_p_B1, min_p_B1 = _split_limits(limits_B4)
    last = logits_BV.shape[1] - 1  # NaN is beyond it
    drawn_B1 = _find_share(_relative_weights(logits_BV, temperature_B1), share_B1).clamp_max(last)
    if mode == "truncated":
        logits_BV, order_BV = logits_BV.sort(descending=True, stable=True)
        weights_BV = _relative_weights(logits_BV, temperature_B1)
        weights_BV = _truncate(weights_BV, top_k_B1, top_p_B1, min_p_B1)
        ranks_B1 = _find_share(weights_BV, share_B1).clamp_max(last)
        truncates_B1 = top_k_B1.isfinite() | top_p_B1.isfinite() | (min_p_B1 > 0)
        drawn_B1 = torch.where(truncates_B1, order_BV.gather(1, ranks_B1), drawn_B1)
    return torch.where(limits_B4[:, :1] > 0, drawn_B1, ids_B1)[:, 0]
