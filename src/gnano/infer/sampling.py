"""Which tokens may come, and how likely is each? Temperature, then top-k, top-p and min-p.

Each of the three keeps a beginning of the order from the likeliest down (of equals, the
lower id first), and top-p counts in what top-k has left. So only as many tokens are put in
order as could be kept: sorting a vocabulary of 50,000 costs more than a small model's token.

What does the text so far say against a token? Logits in, logits of the same shape out.

In this order, on the model's own logits, before the temperature:

    logit bias           + what was asked for this id
    repetition penalty   ÷ where positive, × where negative; ids of the prompt and the answer
    frequency, presence  − per time it was written, − if it was written; the answer alone
    no-repeat            −inf for what would complete a run of n ids that was there already

Bias, repetition and no-repeat are transformers' (`sequence_bias`, `repetition_penalty`,
`no_repeat_ngram_size`), frequency and presence are those of OpenAI's API. A `History` grows
with the text, so that a step costs as much as there are distinct tokens, however long the
text is.

How likely was a token to the model itself, and what had it rather said?

Of the model's own logits, before temperature, penalties and limits: these say how a token is
drawn, and not what the model believes.

Which token comes next? From logits to one id a row, each row by its own settings.

    logits ─▶ penalties ─▶ ÷ temperature ─▶ top-k ─▶ top-p ─▶ min-p ─▶ draw ─▶ id
              penalties.py └───────────── limits.py ─────────────┘

The order is that of transformers. A token is drawn with one number from the row's own
generator, the share of the probability that lies before it: what else is in the batch
changes no draw.
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


class TokenHistory:
    """The ids of a prompt and of its answer so far, as the penalties want to know them."""

    def __init__(self, prompt: Sequence[int], ngram_size: int = 0) -> None:
        self.seen_ids: set[int] = set(prompt)
        self.output_counts: dict[int, int] = {}  # id -> how often the answer has it
        self.ngram_size = ngram_size  # length of the runs that are remembered; 0: none
        self.next_ids_by_prefix: dict[tuple[int, ...], set[int]] = {}  # first n - 1 ids -> the last
        self.recent_ids: deque[int] = deque(maxlen=max(0, ngram_size - 1))
        for token in prompt if ngram_size else ():
            self._record_ngram(token)

    def add(self, token: int) -> None:
        """One more token of the answer."""
        self.seen_ids.add(token)
        self.output_counts[token] = self.output_counts.get(token, 0) + 1
        if self.ngram_size:
            self._record_ngram(token)

    def repeated_ngram_ids(self) -> set[int]:
        """The ids that would complete a run of n ids for the second time."""
        return (
            self.next_ids_by_prefix.get(tuple(self.recent_ids), set()) if self.ngram_size else set()
        )

    def _record_ngram(self, token: int) -> None:
        if len(self.recent_ids) == self.ngram_size - 1:
            self.next_ids_by_prefix.setdefault(tuple(self.recent_ids), set()).add(token)
        self.recent_ids.append(token)


def start_history(prompt: Sequence[int], sampling: SamplingParams) -> TokenHistory | None:
    """Return the history that these settings need of a text; None where they need none."""
    return TokenHistory(prompt, sampling.no_repeat_ngram_size) if sampling.needs_history else None


def apply_penalties(
    logits_V: Tensor, sampling: SamplingParams, history: TokenHistory | None
) -> None:
    """Change fp32 logits [V] in place as bias, penalties and no-repeat ask for."""
    if sampling.logit_bias:
        _apply_logit_bias(logits_V, sampling.logit_bias)
    if not sampling.needs_history:
        return
    if history is None:
        raise ValueError(
            "Penalties and no-repeat need the text so far, and no history of it was given: "
            "make one with start_history(prompt, sampling) and add every token to it."
        )
    if sampling.repetition_penalty != 1 and history.seen_ids:
        ids = _index_tensor(history.seen_ids, logits_V)
        logit = logits_V[ids]
        penalty = sampling.repetition_penalty
        logits_V[ids] = torch.where(logit < 0, logit * penalty, logit / penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and history.output_counts:
        ids = _index_tensor(history.output_counts, logits_V)
        times = torch.tensor(list(history.output_counts.values()), dtype=torch.float32)
        against = sampling.frequency_penalty * times + sampling.presence_penalty
        logits_V[ids] -= against.to(logits_V.device)
    if sampling.no_repeat_ngram_size:
        assert history.ngram_size == sampling.no_repeat_ngram_size, "a history of other settings"
        banned = history.repeated_ngram_ids()
        # where every token is banned, something must come all the same
        if 0 < len(banned) < len(logits_V):
            logits_V[_index_tensor(banned, logits_V)] = -torch.inf


def _apply_logit_bias(logits_V: Tensor, pairs: tuple[tuple[int, float], ...]) -> None:
    largest = max(token for token, _ in pairs)
    check_number("A token of logit_bias", largest, Range(0, len(logits_V) - 1))
    biases = torch.tensor([bias for _, bias in pairs], device=logits_V.device)
    logits_V[_index_tensor([token for token, _ in pairs], logits_V)] += biases


def _index_tensor(tokens: Collection[int], logits_V: Tensor) -> Tensor:
    """Distinct ids as an index, several times as fast as a tensor of a list."""
    return torch.from_numpy(np.fromiter(tokens, np.int64, len(tokens))).to(logits_V.device)


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    logprob: float  # natural logarithm of its probability, 0 at most
    top_logprobs: tuple[tuple[int, float], ...] = ()  # the likeliest and theirs, likeliest first


def compute_logprob(logits_V: Tensor, token_id: int, num_top: int = 0) -> TokenLogprob:
    """Of a token and, beside it, of the `top` likeliest (it may be among them)."""
    check_number("top", num_top, Range(0))
    log_V = logits_V.float().log_softmax(-1)
    if not num_top:
        return TokenLogprob(token_id, float(log_V[token_id]))
    ids = top_token_ids(log_V, min(num_top, len(log_V)))
    values = log_V[ids].tolist()
    return TokenLogprob(
        token_id, float(log_V[token_id]), tuple(zip(ids.tolist(), values, strict=True))
    )


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
