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

from gnano.model.attention import Branches
from gnano.model.cache import KVCache
from gnano.model.devices import widest_dtype
from gnano.model.gpt import GPT

WORTH = 16  # tokens that all questions begin with, from which on they are computed apart
CPU_LOGITS, GPU_LOGITS = 2**24, 2**29  # bytes of fp32 logits at once; in a CPU's cache
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Option:
    ids: Ids
    scored: int  # how many of the last ids are scored


@dataclass(frozen=True)
class Question:
    options: tuple[Option, ...]

    @property
    def shared(self) -> int:
        """Number of tokens common to all options; the last one of an option is never fed."""
        return common([option.ids[:-1] for option in self.options])

    @property
    def fed(self) -> int:
        """Number of tokens that are fed for the question, what is shared once."""
        shared = self.shared
        return shared + sum(len(option.ids) - 1 - shared for option in self.options)


class Reader(Protocol):
    """A model that scores the options of questions."""

    @property
    def context(self) -> int: ...

    def begin(self, head: Ids) -> None:
        """Set what all questions of the next batches begin with."""

    def score_options(self, questions: Sequence[Question]) -> Tensor:
        """Return nats and number of tokens that were not the likeliest of each option: [O, 2].

        fp64, on the model's device.
        """


def common(texts: Sequence[Ids]) -> int:
    """Return the number of ids that all of these begin with."""
    first, *others = texts
    shortest = min(map(len, texts))
    differ = (at for at in range(shortest) if any(text[at] != first[at] for text in others))
    return next(differ, shortest)


def batches(questions: Sequence[Question], rows: int) -> Iterator[list[int]]:
    """Yield the numbers of the questions of each batch, longest first, of at most `rows` options.

    A question of more options than that is a batch of its own.
    """
    lengths = [question.fed for question in questions]
    order = sorted(range(len(questions)), key=lambda number: (-lengths[number], number))
    batch: list[int] = []
    filled = 0
    for number in order:
        count = len(questions[number].options)
        if batch and filled + count > rows:
            yield batch
            batch, filled = [], 0
        batch.append(number)
        filled += count
    if batch:
        yield batch


def log_likelihoods(
    reader: Reader,
    questions: Sequence[Question],
    rows: int = 32,
    show: Callable[[int], None] = lambda _: None,
) -> list[list[tuple[float, bool]]]:
    """Return for each question's options log-likelihood in nats and whether greedy decoding agrees.

    `rows` options are computed side by side. `show` is called with the number of questions done.
    """
    if not questions:
        return []
    reader.begin(_head(questions))
    numbers: list[int] = []
    found: list[Tensor] = []
    for batch in batches(questions, rows):
        show(len(numbers))
        found.append(reader.score_options([questions[number] for number in batch]))
        numbers += batch
    pairs = iter(torch.cat(found).tolist())  # of a GPU waited for here, once
    answers: dict[int, list[tuple[float, bool]]] = {}
    for number in numbers:
        own = islice(pairs, len(questions[number].options))
        answers[number] = [(-nats, missed == 0) for nats, missed in own]
    return [answers[number] for number in range(len(questions))]


def _head(questions: Sequence[Question]) -> Ids:
    """Return what all of them begin with, if long enough; no token of it predicts a scored one."""
    options = [option for question in questions for option in question.options]
    size = min(len(option.ids) - option.scored - 1 for option in options)
    size = min(size, common([question.options[0].ids[: question.shared] for question in questions]))
    return options[0].ids[:size] if size >= WORTH and len(questions) > 1 else ()


class GPTReader:
    """One of our models: called once a batch, so that ranks that share it call it equally often."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.head: Ids = ()
        self.head_cache: KVCache | None = None

    @property
    def context(self) -> int:
        return self.model.config.block_size

    @property
    def device(self) -> torch.device:
        return self.model.model.embed_tokens.weight.device

    def begin(self, head: Ids) -> None:
        self.head, self.head_cache = head, None

    @torch.no_grad()
    def score_options(self, questions: Sequence[Question]) -> Tensor:
        return self.model.measure(partial(self._score, questions=questions))

    def _score(self, model: GPT, questions: Sequence[Question]) -> Tensor:
        rows = [_Row(question, len(self.head)) for question in questions]
        width = max(1, *(len(row.ids) for row in rows))
        ids_BT, numbers_BT, places_BT = (
            padded(parts, width, self.device)
            for parts in zip(*((row.ids, row.numbers, row.places) for row in rows), strict=True)
        )
        # a lone option a row is plain text, which attention reads fastest without a mask
        unbranched = all(len(question.options) == 1 for question in questions)
        branches = None if unbranched and not self.head else Branches(numbers_BT, places_BT)
        cache = self._cache_for(model, len(rows), width) if self.head else None
        x_BTD = model.hidden(ids_BT, cache, branches=branches)
        options = [option for question in questions for option in question.options]
        places = [number * width + place for number, row in enumerate(rows) for place in row.scored]
        x_ND = x_BTD.flatten(0, 1)
        return option_nats(model.logits, model.config.vocab_size, options, x_ND, places)

    def _cache_for(self, model: GPT, rows: int, room: int) -> KVCache:
        if self.head_cache is None:
            weight = model.model.embed_tokens.weight
            dtype = model.compute_dtype or weight.dtype
            self.head_cache = KVCache(model.config, 1, len(self.head), dtype, self.device)
            model.hidden(torch.tensor([self.head], device=self.device), self.head_cache)
        return self.head_cache.spread(rows, room)


class _Row:
    """A question as a row of tokens after the first `skip`: its beginning, then its branches."""

    def __init__(self, question: Question, skip: int) -> None:
        shared = question.shared
        self.ids = list(question.options[0].ids[skip:shared])
        self.numbers = [0] * len(self.ids)  # of the branch
        self.places = list(range(skip, shared))
        self.scored: list[int] = []  # places in the row that predict the scored tokens
        for number, option in enumerate(question.options, 1):
            fed = len(option.ids) - 1
            first = fed - option.scored  # in the option's own text
            fork = max(first, shared)  # from here on in its branch
            self.scored += range(first - skip, fork - skip)
            self.scored += range(fork - shared + len(self.ids), fed - shared + len(self.ids))
            self.ids += option.ids[shared:-1]
            self.numbers += [number] * (fed - shared)
            self.places += range(shared, fed)


def option_nats(
    logits: Callable[[Tensor], Tensor],
    vocab_size: int,
    options: Sequence[Option],
    x_ND: Tensor,
    places: Sequence[int],
) -> Tensor:
    """Return nats of each option and how many of its tokens greedy decoding misses: [O, 2], fp64.

    `places` are those, in x_ND, of the hidden states that predict the options' scored tokens.
    Computed in slices: the logits of a whole batch may not fit in memory.
    """
    device = x_ND.device
    targets = [token for option in options for token in option.ids[-option.scored :]]
    owners = [row for row, option in enumerate(options) for _ in range(option.scored)]
    targets_N, places_N, owners_N = (
        torch.tensor(numbers, device=device) for numbers in (targets, places, owners)
    )
    found_N2 = torch.empty(len(targets), 2, dtype=widest_dtype(device), device=device)
    size = max(1, (CPU_LOGITS if device.type == "cpu" else GPU_LOGITS) // (4 * vocab_size))
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        logits_NV = logits(x_ND[places_N[rows]])
        target_N = logits_NV.gather(1, targets_N[rows, None])[:, 0]
        # in bf16 several tokens are often equally likely: argmax takes one, as greedy decoding does
        likeliest_N1 = logits_NV.argmax(-1, keepdim=True)
        most_N1 = logits_NV.gather(1, likeliest_N1)
        # in place: each pass more over them is as long as the product that made them
        total_N = logits_NV.sub_(most_N1).exp_().sum(-1)
        found_N2[rows, 0] = total_N.log() + (most_N1[:, 0] - target_N)
        found_N2[rows, 1] = targets_N[rows] != likeliest_N1[:, 0]
    found_O2 = torch.zeros(len(options), 2, dtype=found_N2.dtype, device=device)
    return found_O2.index_add_(0, owners_N, found_N2)


def padded(parts: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Return the parts as [B, T], 0 after each one's end."""
    return torch.tensor([[*part, *[0] * (width - len(part))] for part in parts], device=device)
