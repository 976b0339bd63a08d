"""Log-likelihoods of texts under a model, computing shared prefixes once.

    examples ─┬─ context 1 ─┬─ answer a       An item's context and all its answers form one row,
              │             └─ answer b       in which no answer attends to another. The prefix of
              └─ context 2 ─┬─ answer a       all items is kept as cached keys and values.
                            └─ answer b

The prefix that an item's choices share is found by comparing token ids. Rows are padded at their
ends, which no token attends to, so a result depends on its batch only through rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, takewhile
from typing import Any

import torch
from torch import Tensor

from gnano.model.attention import KVCache, PrefixTree
from gnano.model.transformer import GPT
from gnano.utils.platform_support import accumulation_dtype

MIN_SHARED_PREFIX = 16  # tokens; a shorter prefix of all items is not cached
# bytes of fp32 logits computed together; the CPU's fit in its cache
CPU_LOGITS_BYTES, GPU_LOGITS_BYTES = 2**24, 2**29
TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class EncodedChoice:
    """Token ids of a context and one answer."""

    ids: TokenIds
    num_scored: int  # the last `num_scored` ids are scored


EncodedItem = tuple[EncodedChoice, ...]  # the choices of an evaluation item


def count_shared(item: EncodedItem) -> int:
    """Return how many leading tokens all choices share; their last tokens are never inputs."""
    return common_prefix_length([choice.ids[:-1] for choice in item])


def common_prefix_length(texts: Sequence[TokenIds]) -> int:
    """Return the number of leading ids that all texts share."""
    columns = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, columns))


def make_batches(items: Sequence[EncodedItem], batch_size: int) -> Iterator[list[int]]:
    """Yield the item numbers of each batch, longest first, with at most `batch_size` choices.

    An item with more choices is a batch by itself.
    """
    lengths = []  # input tokens, with the shared ones counted once
    for item in items:
        shared = count_shared(item)
        lengths.append(shared + sum(len(choice.ids) - 1 - shared for choice in item))
    order = sorted(range(len(items)), key=lambda number: (-lengths[number], number))
    batch: list[int] = []
    num_choices = 0
    for number in order:
        count = len(items[number])
        if batch and num_choices + count > batch_size:
            yield batch
            batch, num_choices = [], 0
        batch.append(number)
        num_choices += count
    if batch:
        yield batch


def compute_loglikelihoods(
    scorer: "ChoiceScorer",
    items: Sequence[EncodedItem],
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[list[tuple[float, bool]]]:
    """Return each choice's log-likelihood in nats and whether greedy decoding produces it.

    At most `batch_size` choices are computed together. `on_progress` receives the number of items
    finished.
    """
    if not items:
        return []
    choices = list(chain.from_iterable(items))
    num_shared = min(  # by all items; the shared prefix predicts no scored token
        *(len(choice.ids) - choice.num_scored - 1 for choice in choices),
        common_prefix_length([item[0].ids[: count_shared(item)] for item in items]),
    )
    is_cached = num_shared >= MIN_SHARED_PREFIX and len(items) > 1
    scorer.set_prefix(choices[0].ids[:num_shared] if is_cached else ())
    order: list[int] = []
    scores: list[Tensor] = []
    for batch in make_batches(items, batch_size):
        on_progress(len(order))
        scores.append(scorer.score_choices([items[number] for number in batch]))
        order += batch
    pairs = iter(torch.cat(scores).tolist())  # the only synchronization with a GPU
    by_item: dict[int, list[tuple[float, bool]]] = {}
    for number in order:
        own = islice(pairs, len(items[number]))
        by_item[number] = [(-nats, missed == 0) for nats, missed in own]
    return [by_item[number] for number in range(len(items))]


class GPTScorer:
    """Scores with a gnano model, calling it once per batch.

    Ranks that share a sharded model therefore call it equally often.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.block_size = model.config.block_size
        self.device = model.model.embed_tokens.weight.device
        self.prefix: TokenIds = ()
        self.prefix_cache: KVCache | None = None

    def set_prefix(self, prefix: TokenIds) -> None:
        """Set the ids that all items of the following batches begin with."""
        self.prefix, self.prefix_cache = prefix, None  # computed with the next batch

    @torch.no_grad()
    def score_choices(self, items: Sequence[EncodedItem]) -> Tensor:
        """Return nats and the number of tokens that are not the argmax, per choice: [O, 2], fp64.

        The tensor is on the model's device.
        """
        return self.model.run_unsharded(partial(self._compute_nll, items=items))

    def _compute_nll(self, model: GPT, items: Sequence[EncodedItem]) -> Tensor:
        rows = [_branched_row(item, len(self.prefix)) for item in items]
        width = max(1, *(len(ids) for ids, *_ in rows))
        ids, branches, positions, scored_positions = zip(*rows, strict=True)
        ids_BT, branches_BT, positions_BT = (
            pad_rows(parts, width, self.device) for parts in (ids, branches, positions)
        )
        # rows of one choice are plain text, for which attention is fastest without a mask
        is_plain = all(len(item) == 1 for item in items)
        tree = None if is_plain and not self.prefix else PrefixTree(branches_BT, positions_BT)
        cache = None
        if self.prefix:
            if self.prefix_cache is None:
                dtype = model.compute_dtype or model.model.embed_tokens.weight.dtype
                self.prefix_cache = KVCache(model.config, 1, len(self.prefix), dtype, self.device)
                prefix_BT = torch.tensor([self.prefix], device=self.device)
                model.hidden_states(prefix_BT, self.prefix_cache)
            cache = self.prefix_cache.expand(len(rows), width)
        x_ND = model.hidden_states(ids_BT, cache, prefix_tree=tree).flatten(0, 1)
        choices = list(chain.from_iterable(items))
        predicting = [
            number * width + at for number, own in enumerate(scored_positions) for at in own
        ]
        return choice_nll(model.logits, model.config.vocab_size, choices, x_ND, predicting)


def _branched_row(
    item: EncodedItem, skip: int
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return an item as one row of tokens after the first `skip`: the shared ones, then branches.

    The lists are the ids; the branch of each token, 0 where it is shared; its position in its text;
    and the positions in the row that predict scored tokens.
    """
    shared = count_shared(item)
    ids = list(item[0].ids[skip:shared])
    branches = [0] * len(ids)
    positions = list(range(skip, shared))
    scored_positions: list[int] = []
    for number, choice in enumerate(item, 1):
        num_inputs = len(choice.ids) - 1
        first = num_inputs - choice.num_scored  # position in the choice's own text
        fork = max(first, shared)  # later positions are in this choice's branch
        offset = len(ids) - shared
        scored_positions += range(first - skip, fork - skip)
        scored_positions += range(fork + offset, num_inputs + offset)
        ids += choice.ids[shared:-1]
        branches += [number] * (num_inputs - shared)
        positions += range(shared, num_inputs)
    return ids, branches, positions, scored_positions


class TransformersScorer:
    """Scores with any transformers model, computing each choice in full."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        size = getattr(config, "max_position_embeddings", None) or getattr(config, "n_ctx", None)
        self.block_size = int(size or 2_048)

    def set_prefix(self, prefix: TokenIds) -> None:
        """Do nothing; no prefix is cached."""

    @torch.no_grad()
    def score_choices(self, items: Sequence[EncodedItem]) -> Tensor:
        """Return nats and non-argmax token counts of every choice: [O, 2], fp64."""
        choices = list(chain.from_iterable(items))
        vocab_size = self.model.config.vocab_size
        longest = max(len(choice.ids) for choice in choices)
        num_rows = max(1, GPU_LOGITS_BYTES // (4 * vocab_size * longest))
        parts = []
        for start in range(0, len(choices), num_rows):
            rows = choices[start : start + num_rows]
            width = max(len(choice.ids) for choice in rows) - 1
            ids_BT = pad_rows([choice.ids[:-1] for choice in rows], width, self.model.device)
            logits_NV = self.model(input_ids=ids_BT, use_cache=False).logits.flatten(0, 1)
            predicting: list[int] = []
            for number, choice in enumerate(rows):
                end = number * width + len(choice.ids) - 1
                predicting += range(end - choice.num_scored, end)
            parts.append(choice_nll(Tensor.float, logits_NV.shape[-1], rows, logits_NV, predicting))
        return torch.cat(parts)


ChoiceScorer = GPTScorer | TransformersScorer


def choice_nll(
    compute_logits: Callable[[Tensor], Tensor],
    vocab_size: int,
    choices: Sequence[EncodedChoice],
    x_ND: Tensor,
    positions: Sequence[int],
) -> Tensor:
    """Return each choice's nats and its number of tokens that are not the argmax: [O, 2], fp64.

    `positions` are the rows of `x_ND` that predict the scored tokens of all choices in order. The
    work is done in slices, because the logits of a full batch may not fit in memory.
    """
    device = x_ND.device
    targets = [token for choice in choices for token in choice.ids[-choice.num_scored :]]
    owners = [row for row, choice in enumerate(choices) for _ in range(choice.num_scored)]
    targets_N, positions_N, owners_N = (
        torch.tensor(numbers, device=device) for numbers in (targets, positions, owners)
    )
    scores_N2 = torch.empty(len(targets), 2, dtype=accumulation_dtype(device), device=device)
    max_bytes = CPU_LOGITS_BYTES if device.type == "cpu" else GPU_LOGITS_BYTES
    size = max(1, max_bytes // (4 * vocab_size))
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        logits_NV = compute_logits(x_ND[positions_N[rows]])
        target_N = logits_NV.gather(1, targets_N[rows, None])[:, 0]
        # in bf16 several tokens often share the maximum: argmax takes one, as greedy decoding does
        argmax_N1 = logits_NV.argmax(-1, keepdim=True)
        max_N1 = logits_NV.gather(1, argmax_N1)
        # in place: another pass over the logits takes as long as the product that made them
        total_N = logits_NV.sub_(max_N1).exp_().sum(-1)
        scores_N2[rows, 0] = total_N.log() + (max_N1[:, 0] - target_N)
        scores_N2[rows, 1] = targets_N[rows] != argmax_N1[:, 0]
    scores_O2 = torch.zeros(len(choices), 2, dtype=scores_N2.dtype, device=device)
    return scores_O2.index_add_(0, owners_N, scores_N2)


def pad_rows(rows: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Return the rows as one tensor [B, T], padded with 0 at their ends."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
