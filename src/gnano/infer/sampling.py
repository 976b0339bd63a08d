"""Sampling: from logits to one token id per row, with per-row settings, and log-probabilities.

    logits ─▶ bias and penalties ─▶ ÷ temperature ─▶ top-k ─▶ top-p ─▶ min-p ─▶ draw ─▶ id

The order is that of transformers. Bias and penalties apply to the model's own logits:

    logit bias           + the value given for an id
    repetition penalty   ÷ where positive, × where negative; ids of prompt and answer
    frequency, presence  − per occurrence, − once if it occurs; ids of the answer only
    no-repeat            −inf for ids that would repeat an n-gram

Bias, repetition and no-repeat are those of transformers (`sequence_bias`, `repetition_penalty`,
`no_repeat_ngram_size`), frequency and presence those of OpenAI's API. A `TokenHistory` grows with
the text, so that a step costs as much as there are distinct tokens.

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
    if not any(s.truncates for s in params):
        return _relative_weights(logits_BV, params), None

    V = logits_BV.shape[1]
    top_ks = [min(s.top_k or V, V) for s in params]
    top_k_B1 = _to_column(top_ks, logits_BV, torch.int64)
    # a rounded sum must not reach a top-p of 1
    shares = [s.top_p if s.top_p < 1 else math.inf for s in params]
    top_p_B1 = _to_column(shares, logits_BV, torch.float64)
    min_p_B1 = _to_column([s.min_p for s in params], logits_BV)

    total_B1: Tensor | None = None
    if (K := max(top_ks)) == V:  # some row has no top-k
        weights_BV = _relative_weights(logits_BV, params)
        total_B1 = weights_BV.sum(-1, keepdim=True, dtype=torch.float64)
        K = _candidate_count(weights_BV, top_k_B1, top_p_B1 * total_B1, min_p_B1)
    ids_BK = top_token_ids(logits_BV, K)
    weights_BK = _relative_weights(logits_BV.gather(1, ids_BK), params)
    weights_BK.masked_fill_(torch.arange(K, device=ids_BK.device) >= top_k_B1, 0)
    left_B1 = weights_BK.sum(-1, keepdim=True, dtype=torch.float64)
    if total_B1 is not None:
        left_B1 = torch.where(top_k_B1 < V, left_B1, total_B1)
    before_BK = weights_BK.cumsum(-1, dtype=torch.float64) - weights_BK
    out_BK = (before_BK >= top_p_B1 * left_B1) | (weights_BK < min_p_B1)
    return weights_BK.masked_fill_(out_BK, 0), ids_BK


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


def _candidate_count(
    weights_BV: Tensor, top_k_B1: Tensor, share_B1: Tensor, min_p_B1: Tensor
) -> int:
    """Return how many of the likeliest tokens include all that any row keeps: mostly 256."""
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
    # much smaller values are 0 in fp32
    temperature_B1 = _to_column([max(s.temperature, 1e-30) for s in params], logits_BK)
    # relative to the largest, so that no temperature causes an overflow
    return ((logits_BK - logits_BK.amax(-1, keepdim=True)) / temperature_B1).exp()


def _to_column(values: Sequence[float], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]


class TokenHistory:
    """The ids of a prompt and its answer so far, in the form that penalties need."""

    def __init__(self, prompt: Sequence[int], ngram_size: int = 0) -> None:
        self.seen_ids: set[int] = set(prompt)
        self.output_counts: dict[int, int] = {}  # id -> its occurrences in the answer
        self.ngram_size = ngram_size  # 0: no n-grams are recorded
        self.next_ids_by_prefix: dict[
            tuple[int, ...], set[int]
        ] = {}  # first n - 1 ids -> the last ones
        self.recent_ids: deque[int] = deque(maxlen=max(0, ngram_size - 1))
        for token in prompt if ngram_size else ():
            self._record_ngram(token)

    def add(self, token: int) -> None:
        """Add a token of the answer."""
        self.seen_ids.add(token)
        self.output_counts[token] = self.output_counts.get(token, 0) + 1
        if self.ngram_size:
            self._record_ngram(token)

    def repeated_ngram_ids(self) -> set[int]:
        """Return the ids that would complete an n-gram for the second time."""
        return (
            self.next_ids_by_prefix.get(tuple(self.recent_ids), set()) if self.ngram_size else set()
        )

    def _record_ngram(self, token: int) -> None:
        if len(self.recent_ids) == self.ngram_size - 1:
            self.next_ids_by_prefix.setdefault(tuple(self.recent_ids), set()).add(token)
        self.recent_ids.append(token)


def needs_history(sampling: SamplingParams) -> bool:
    """Return whether the settings depend on the text so far."""
    return bool(
        sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.no_repeat_ngram_size
    )


def start_history(prompt: Sequence[int], sampling: SamplingParams) -> TokenHistory | None:
    """Return a history of the prompt if the settings need one, else None."""
    return TokenHistory(prompt, sampling.no_repeat_ngram_size) if needs_history(sampling) else None


def apply_penalties(
    logits_V: Tensor, sampling: SamplingParams, history: TokenHistory | None
) -> None:
    """Apply bias, penalties and no-repeat to fp32 logits [V] in place."""
    if sampling.logit_bias:
        _apply_logit_bias(logits_V, sampling.logit_bias)
    if not needs_history(sampling):
        return
    if history is None:
        raise ValueError(
            "Penalties and no-repeat need a history of the text: make one with "
            "start_history(prompt, sampling), and add every token to it."
        )
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
        assert history.ngram_size == sampling.no_repeat_ngram_size, "the history has other settings"
        banned = history.repeated_ngram_ids()
        # if every token is banned, none is
        if 0 < len(banned) < len(logits_V):
            logits_V[_index_tensor(banned, logits_V)] = -torch.inf


def _apply_logit_bias(logits_V: Tensor, pairs: tuple[tuple[int, float], ...]) -> None:
    largest = max(token for token, _ in pairs)
    check_number("A token of logit_bias", largest, Range(0, len(logits_V) - 1))
    biases = torch.tensor([bias for _, bias in pairs], device=logits_V.device)
    logits_V[_index_tensor([token for token, _ in pairs], logits_V)] += biases


def _index_tensor(tokens: Collection[int], logits_V: Tensor) -> Tensor:
    """Return distinct ids as an index; several times as fast as torch.tensor of a list."""
    return torch.from_numpy(np.fromiter(tokens, np.int64, len(tokens))).to(logits_V.device)


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token and of the likeliest alternatives."""

    token_id: int
    logprob: float  # natural logarithm, at most 0
    top_logprobs: tuple[tuple[int, float], ...] = ()  # (id, log-probability), likeliest first


def compute_logprob(logits_V: Tensor, token_id: int, num_top: int = 0) -> TokenLogprob:
    """Return the log-probabilities of a token and of the `num_top` likeliest ones."""
    check_number("top", num_top, Range(0))
    log_V = logits_V.float().log_softmax(-1)
    if not num_top:
        return TokenLogprob(token_id, float(log_V[token_id]))
    ids = top_token_ids(log_V, min(num_top, len(log_V)))
    values = log_V[ids].tolist()
    return TokenLogprob(
        token_id, float(log_V[token_id]), tuple(zip(ids.tolist(), values, strict=True))
    )


def make_generator(seed: int | None) -> torch.Generator:
    """Return a random generator for one sequence; None seeds it from the operating system."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def sample_tokens(
    logits_BV: Tensor,
    params: Sequence[SamplingParams],
    generators: Sequence[torch.Generator],
    histories: Sequence[TokenHistory | None],
) -> list[int]:
    """Draw one token id per row from logits [B, V]; rows do not affect each other."""
    logits_BV = _penalize_rows(logits_BV, params, histories)
    tokens = [0] * len(params)
    greedy = [row for row, s in enumerate(params) if s.temperature == 0]
    drawn = [row for row, s in enumerate(params) if s.temperature > 0]
    limited = [row for row in drawn if params[row].truncates]
    unlimited = [row for row in drawn if not params[row].truncates]
    for rows in filter(None, (greedy, limited, unlimited)):
        # a uniform batch is not copied
        logits_RV = logits_BV if len(rows) == len(params) else logits_BV[rows]
        if rows is greedy:
            ids = logits_RV.argmax(-1).tolist()
        else:
            weights, order = truncated_weights(logits_RV, [params[row] for row in rows])
            indices_R1 = _draw_indices(weights, [generators[row] for row in rows])
            ids_R1 = indices_R1 if order is None else order.gather(1, indices_R1)
            ids = ids_R1[:, 0].tolist()
        for row, token in zip(rows, ids, strict=True):
            tokens[row] = token
    return tokens


def _penalize_rows(
    logits_BV: Tensor, params: Sequence[SamplingParams], histories: Sequence[TokenHistory | None]
) -> Tensor:
    rows = [row for row, s in enumerate(params) if needs_history(s) or s.logit_bias]
    if not rows:
        return logits_BV
    logits_BV = logits_BV.to(torch.float32, copy=True)
    for row in rows:
        apply_penalties(logits_BV[row], params[row], histories[row])
    return logits_BV


def _draw_indices(weights_BK: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw an index per row with probability proportional to its weight: [B, 1]."""
    # torch.multinomial would draw a number for every token of the vocabulary
    numbers = [torch.rand((), dtype=torch.float64, generator=g) for g in generators]
    share_B1 = torch.stack(numbers)[:, None].to(weights_BK.device)
    reached_BK = weights_BK.cumsum(-1, dtype=torch.float64)
    total_B1 = reached_BK[:, -1:]
    if not bool(total_B1.isfinite().all()):
        raise ValueError(
            "No token can be drawn, because the model's logits are not finite numbers: its "
            "weights have overflowed or are damaged. Use an earlier checkpoint."
        )
    # rounding must not reach the end of the row, where tokens may be excluded
    target_B1 = torch.minimum(share_B1 * total_B1, total_B1.nextafter(total_B1.new_zeros(())))
    return torch.searchsorted(reached_BK, target_B1, right=True)
