"""What does the text so far say against a token? Logits in, logits of the same shape out.

In this order, on the model's own logits, before the temperature:

    logit bias           + what was asked for this id
    repetition penalty   ÷ where positive, × where negative; ids of the prompt and the answer
    frequency, presence  − per time it was written, − if it was written; the answer alone
    no-repeat            −inf for what would complete a run of n ids that was there already

Bias, repetition and no-repeat are transformers' (`sequence_bias`, `repetition_penalty`,
`no_repeat_ngram_size`), frequency and presence are those of OpenAI's API. A `History` grows
with the text, so that a step costs as much as there are distinct tokens, however long the
text is.
"""

from collections import deque
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from gnano.infer.sampling import SamplingParams
from gnano.utils.ranges import Range, check_number


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
