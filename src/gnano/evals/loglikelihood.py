"""Log-likelihoods of texts under a model; what the texts begin with is computed once.

    examples ─┬─ context 1 ─┬─ answer a       a question's context and all its answers are a row,
              │             └─ answer b       in which no answer sees another; what all questions
              └─ context 2 ─┬─ answer a       begin with is kept as keys and values
                            └─ answer b

A question's options may differ anywhere: what all of them begin with is found by their tokens.
Rows are padded at their ends, where nothing sees it, so that a result does not depend on its batch,
but for rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from gnano.model.devices import accumulation_dtype
from gnano.model.kv_cache import KVCache
from gnano.model.layers import PrefixTree
from gnano.model.transformer import GPT

# tokens that all questions begin with, from which on they are computed apart
MIN_SHARED_PREFIX = 16
CPU_LOGITS_BYTES, GPU_LOGITS_BYTES = 2**24, 2**29  # bytes of fp32 logits at once; in a CPU's cache
TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class EncodedChoice:
    ids: TokenIds
    num_scored: int  # how many of the last ids are scored


@dataclass(frozen=True)
class EncodedItem:
    choices: tuple[EncodedChoice, ...]

    @property
    def num_shared(self) -> int:
        """Number of tokens common to all options; the last one of an option is never fed."""
        return common_prefix_length([option.ids[:-1] for option in self.choices])

    @property
    def num_fed(self) -> int:
        """Number of tokens that are fed for the question, what is shared once."""
        shared = self.num_shared
        return shared + sum(len(option.ids) - 1 - shared for option in self.choices)


class ChoiceScorer(Protocol):
    """A model that scores the options of questions."""

    @property
    def block_size(self) -> int: ...

    def set_prefix(self, prefix: TokenIds) -> None:
        """Set what all questions of the next batches begin with."""

    def score_choices(self, items: Sequence[EncodedItem]) -> Tensor:
        """Return nats and number of tokens that were not the likeliest of each option: [O, 2].

        fp64, on the model's device.
        """


def common_prefix_length(texts: Sequence[TokenIds]) -> int:
    """Return the number of ids that all of these begin with."""
    first, *others = texts
    shortest = min(map(len, texts))
    differ = (at for at in range(shortest) if any(text[at] != first[at] for text in others))
    return next(differ, shortest)


def make_batches(items: Sequence[EncodedItem], batch_size: int) -> Iterator[list[int]]:
    """Yield the numbers of the questions of each batch, longest first, of at most `rows` options.

    A question of more options than that is a batch of its own.
    """
    lengths = [question.num_fed for question in items]
    order = sorted(range(len(items)), key=lambda number: (-lengths[number], number))
    batch: list[int] = []
    filled = 0
    for number in order:
        count = len(items[number].choices)
        if batch and filled + count > batch_size:
            yield batch
            batch, filled = [], 0
        batch.append(number)
        filled += count
    if batch:
        yield batch


def compute_loglikelihoods(
    scorer: ChoiceScorer,
    items: Sequence[EncodedItem],
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[list[tuple[float, bool]]]:
    """Return for each question's options log-likelihood in nats and whether greedy decoding agrees.

    `rows` options are computed side by side. `show` is called with the number of questions done.
    """
    if not items:
        return []
    scorer.set_prefix(_shared_prefix(items))
    numbers: list[int] = []
    found: list[Tensor] = []
    for batch in make_batches(items, batch_size):
        on_progress(len(numbers))
        found.append(scorer.score_choices([items[number] for number in batch]))
        numbers += batch
    pairs = iter(torch.cat(found).tolist())  # of a GPU waited for here, once
    answers: dict[int, list[tuple[float, bool]]] = {}
    for number in numbers:
        own = islice(pairs, len(items[number].choices))
        answers[number] = [(-nats, missed == 0) for nats, missed in own]
    return [answers[number] for number in range(len(items))]


def _shared_prefix(items: Sequence[EncodedItem]) -> TokenIds:
    """Return what all of them begin with, if long enough; no token of it predicts a scored one."""
    options = [option for question in items for option in question.choices]
    size = min(len(option.ids) - option.num_scored - 1 for option in options)
    size = min(
        size,
        common_prefix_length(
            [question.choices[0].ids[: question.num_shared] for question in items]
        ),
    )
    return options[0].ids[:size] if size >= MIN_SHARED_PREFIX and len(items) > 1 else ()


class GPTScorer:
    """One of our models: called once a batch, so that ranks that share it call it equally often."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.prefix: TokenIds = ()
        self.prefix_cache: KVCache | None = None

    @property
    def block_size(self) -> int:
        return self.model.config.block_size

    @property
    def device(self) -> torch.device:
        return self.model.model.embed_tokens.weight.device

    def set_prefix(self, prefix: TokenIds) -> None:
        self.prefix, self.prefix_cache = prefix, None

    @torch.no_grad()
    def score_choices(self, items: Sequence[EncodedItem]) -> Tensor:
        return self.model.run_unsharded(partial(self._compute_nll, items=items))

    def _compute_nll(self, model: GPT, items: Sequence[EncodedItem]) -> Tensor:
        rows = [_BranchedRow(question, len(self.prefix)) for question in items]
        width = max(1, *(len(row.ids) for row in rows))
        ids_BT, numbers_BT, places_BT = (
            pad_rows(parts, width, self.device)
            for parts in zip(*((row.ids, row.branches, row.positions) for row in rows), strict=True)
        )
        # a lone option a row is plain text, which attention reads fastest without a mask
        unbranched = all(len(question.choices) == 1 for question in items)
        branches = None if unbranched and not self.prefix else PrefixTree(numbers_BT, places_BT)
        cache = self._expand_prefix_cache(model, len(rows), width) if self.prefix else None
        x_BTD = model.hidden_states(ids_BT, cache, prefix_tree=branches)
        options = [option for question in items for option in question.choices]
        places = [
            number * width + place
            for number, row in enumerate(rows)
            for place in row.scored_positions
        ]
        x_ND = x_BTD.flatten(0, 1)
        return choice_nll(model.logits, model.config.vocab_size, options, x_ND, places)

    def _expand_prefix_cache(self, model: GPT, rows: int, capacity: int) -> KVCache:
        if self.prefix_cache is None:
            weight = model.model.embed_tokens.weight
            dtype = model.compute_dtype or weight.dtype
            self.prefix_cache = KVCache(model.config, 1, len(self.prefix), dtype, self.device)
            model.hidden_states(torch.tensor([self.prefix], device=self.device), self.prefix_cache)
        return self.prefix_cache.expand(rows, capacity)


class _BranchedRow:
    """A question as a row of tokens after the first `skip`: its beginning, then its branches."""

    def __init__(self, item: EncodedItem, skip: int) -> None:
        shared = item.num_shared
        self.ids = list(item.choices[0].ids[skip:shared])
        self.branches = [0] * len(self.ids)  # of the branch
        self.positions = list(range(skip, shared))
        self.scored_positions: list[int] = []  # places in the row that predict the scored tokens
        for number, option in enumerate(item.choices, 1):
            fed = len(option.ids) - 1
            first = fed - option.num_scored  # in the option's own text
            fork = max(first, shared)  # from here on in its branch
            self.scored_positions += range(first - skip, fork - skip)
            self.scored_positions += range(
                fork - shared + len(self.ids), fed - shared + len(self.ids)
            )
            self.ids += option.ids[shared:-1]
            self.branches += [number] * (fed - shared)
            self.positions += range(shared, fed)


def choice_nll(
    compute_logits: Callable[[Tensor], Tensor],
    vocab_size: int,
    choices: Sequence[EncodedChoice],
    x_ND: Tensor,
    positions: Sequence[int],
) -> Tensor:
    """Return nats of each option and how many of its tokens greedy decoding misses: [O, 2], fp64.

    `places` are those, in x_ND, of the hidden states that predict the options' scored tokens.
    Computed in slices: the logits of a whole batch may not fit in memory.
    """
    device = x_ND.device
    targets = [token for option in choices for token in option.ids[-option.num_scored :]]
    owners = [row for row, option in enumerate(choices) for _ in range(option.num_scored)]
    targets_N, places_N, owners_N = (
        torch.tensor(numbers, device=device) for numbers in (targets, positions, owners)
    )
    found_N2 = torch.empty(len(targets), 2, dtype=accumulation_dtype(device), device=device)
    size = max(
        1, (CPU_LOGITS_BYTES if device.type == "cpu" else GPU_LOGITS_BYTES) // (4 * vocab_size)
    )
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        logits_NV = compute_logits(x_ND[places_N[rows]])
        target_N = logits_NV.gather(1, targets_N[rows, None])[:, 0]
        # in bf16 several tokens are often equally likely: argmax takes one, as greedy decoding does
        likeliest_N1 = logits_NV.argmax(-1, keepdim=True)
        most_N1 = logits_NV.gather(1, likeliest_N1)
        # in place: each pass more over them is as long as the product that made them
        total_N = logits_NV.sub_(most_N1).exp_().sum(-1)
        found_N2[rows, 0] = total_N.log() + (most_N1[:, 0] - target_N)
        found_N2[rows, 1] = targets_N[rows] != likeliest_N1[:, 0]
    found_O2 = torch.zeros(len(choices), 2, dtype=found_N2.dtype, device=device)
    return found_O2.index_add_(0, owners_N, found_N2)


def pad_rows(rows: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Return the parts as [B, T], 0 after each one's end."""
    return torch.tensor([[*part, *[0] * (width - len(part))] for part in rows], device=device)
