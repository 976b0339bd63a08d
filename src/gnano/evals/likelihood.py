"""How likely does a model find each of several texts? What they begin with is computed once.

    examples ─┬─ context 1 ─┬─ answer a       each ─ is computed once and kept as keys and values;
              │             └─ answer b       what follows goes on from copies of them
              └─ context 2 ─┬─ answer a
                            └─ answer b

A question's options may differ anywhere: what all of them begin with is found by their tokens.
Rows are padded at their ends, where nothing sees it, so that a result does not depend on what it
was computed beside, but for rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from gnano.model import GPT, KVCache

WORTH = 16  # tokens that all questions begin with, from which on they are computed apart
CPU_LOGITS, GPU_LOGITS = 2**26, 2**29  # bytes of fp32 logits at once
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Option:
    ids: Ids
    scored: int  # how many of the last ids are asked for


@dataclass(frozen=True)
class Question:
    options: tuple[Option, ...]

    @property
    def shared(self) -> int:
        """Tokens that are fed alike for all options; the last one of an option is never fed."""
        return common([option.ids[:-1] for option in self.options])

    @property
    def size(self) -> int:
        return max(len(option.ids) for option in self.options)


class Reader(Protocol):
    """A model that can be asked."""

    @property
    def context(self) -> int: ...

    def begin(self, head: Ids) -> None:
        """What all questions of the next batches begin with."""

    def __call__(self, questions: Sequence[Question]) -> Tensor:
        """Of each option of each question: nats, and tokens that were not the likeliest, [O, 2].

        fp64, where the model is.
        """


def common(texts: Sequence[Ids]) -> int:
    """How many ids all of these begin with."""
    first, *others = texts
    shortest = min(map(len, texts))
    differ = (at for at in range(shortest) if any(text[at] != first[at] for text in others))
    return next(differ, shortest)


def batches(questions: Sequence[Question], rows: int, context: int) -> Iterator[list[int]]:
    """Numbers of the questions that are asked together, longest first, of at most so many options.

    A question of more options than that is asked alone. All of a batch fit the context when what
    comes after the longest beginning is as long as the longest.
    """
    order = sorted(range(len(questions)), key=lambda n: (-questions[n].size, n))
    batch: list[int] = []
    filled = start = rest = 0
    for number in order:
        question = questions[number]
        start = max(start, question.shared)
        rest = max(rest, question.size - 1 - question.shared)
        if batch and (filled + len(question.options) > rows or start + rest > context):
            yield batch
            batch, filled = [], 0
            start, rest = question.shared, question.size - 1 - question.shared
        batch.append(number)
        filled += len(question.options)
    if batch:
        yield batch


def log_likelihoods(
    reader: Reader,
    questions: Sequence[Question],
    rows: int = 32,
    show: Callable[[int], None] = lambda _: None,
) -> list[list[tuple[float, bool]]]:
    """Of each question's options: the log-likelihood in nats, and was each token the likeliest?

    `rows` options are computed side by side. `show` is told how many questions are done.
    """
    if not questions:
        return []
    reader.begin(_head(questions))
    numbers: list[int] = []
    found: list[Tensor] = []
    for batch in batches(questions, rows, reader.context):
        show(len(numbers))
        found.append(reader([questions[number] for number in batch]))
        numbers += batch
    pairs: list[list[float]] = torch.cat(found).tolist()  # of a GPU waited for here, once
    answers: dict[int, list[tuple[float, bool]]] = {}
    for number in numbers:
        count = len(questions[number].options)
        answers[number] = [(-nats, missed == 0) for nats, missed in pairs[:count]]
        del pairs[:count]
    return [answers[number] for number in range(len(questions))]


def _head(questions: Sequence[Question]) -> Ids:
    """What all of them begin with, if it is worth while; no token of it predicts a scored one."""
    options = [option for question in questions for option in question.options]
    size = min(len(option.ids) - option.scored - 1 for option in options)
    size = min(size, common([question.options[0].ids[: question.shared] for question in questions]))
    return options[0].ids[:size] if size >= WORTH and len(questions) > 1 else ()


class GPTReader:
    """Ours. `steady`: the model is called equally often for every batch, as ranks must."""

    def __init__(self, model: GPT, steady: bool = False) -> None:
        self.model, self.steady = model, steady
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

    def __call__(self, questions: Sequence[Question]) -> Tensor:
        with torch.no_grad():
            return self.model.measure(partial(self._answer, questions=questions))

    def _answer(self, model: GPT, questions: Sequence[Question]) -> Tensor:
        skip = len(self.head)
        ends = [question.shared for question in questions]
        first = [q.options[0].ids[skip:end] for q, end in zip(questions, ends, strict=True)]
        several = any(len(question.options) > 1 for question in questions)
        # a lone option is fed whole: without a cache, nothing is kept of it
        cache = self._cache(model, len(first), _width(first)) if several or skip else None
        x_BTD = model.hidden(_padded(first, self.device), cache)
        owners = [n for n, question in enumerate(questions) for _ in question.options]
        options = [option for question in questions for option in question.options]
        rest = [o.ids[ends[n] : -1] for n, o in zip(owners, options, strict=True)]
        x_ND = x_BTD.flatten(0, 1)
        if several and (any(rest) or self.steady):
            assert cache is not None
            cache.keep([skip + len(ids) for ids in first])
            below = cache.spread(owners, _width(rest))
            x_ND = torch.cat([x_ND, model.hidden(_padded(rest, self.device), below).flatten(0, 1)])
        after_first = len(first) * _width(first)  # in x_ND
        places: list[int] = []  # in x_ND, of what predicts each scored token
        for row, (owner, option) in enumerate(zip(owners, options, strict=True)):
            fed = len(option.ids) - 1
            turn = max(fed - option.scored, min(ends[owner], fed))  # from here on it is in `rest`
            above = owner * _width(first) - skip
            here = after_first + row * _width(rest) - ends[owner]
            places += range(above + fed - option.scored, above + turn)
            places += range(here + turn, here + fed)
        return option_nats(model.logits, model.config.vocab_size, options, x_ND, places)

    def _cache(self, model: GPT, rows: int, room: int) -> KVCache:
        weight = model.model.embed_tokens.weight
        dtype = model.compute_dtype or weight.dtype
        if not self.head:
            return KVCache(model.config, rows, room, dtype, self.device)
        if self.head_cache is None:
            self.head_cache = KVCache(model.config, 1, len(self.head), dtype, self.device)
            model.hidden(_padded([self.head], self.device), self.head_cache)
        return self.head_cache.spread([0] * rows, room)


def option_nats(
    logits: Callable[[Tensor], Tensor],
    vocab_size: int,
    options: Sequence[Option],
    x_ND: Tensor,
    places: Sequence[int],
) -> Tensor:
    """Nats of each option, and how many of its tokens were not the likeliest: [O, 2], fp64.

    `places` are those, in x_ND, of the hidden states that predict the options' scored tokens. In
    slices: the logits of a whole batch may be more than there is memory for.
    """
    device = x_ND.device
    targets = [token for option in options for token in option.ids[-option.scored :]]
    owners = [row for row, option in enumerate(options) for _ in range(option.scored)]
    targets_N, places_N, owners_N = (
        torch.tensor(numbers, device=device) for numbers in (targets, places, owners)
    )
    found_N2 = torch.empty(len(targets), 2, dtype=torch.float64, device=device)
    size = max(1, (CPU_LOGITS if device.type == "cpu" else GPU_LOGITS) // (4 * vocab_size))
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        logits_NV = logits(x_ND[places_N[rows]])
        target_N = logits_NV.gather(1, targets_N[rows, None])[:, 0]
        found_N2[rows, 0] = (logits_NV.logsumexp(-1) - target_N).double()
        found_N2[rows, 1] = (target_N < logits_NV.amax(-1)).double()
    found_O2 = torch.zeros(len(options), 2, dtype=torch.float64, device=device)
    return found_O2.index_add_(0, owners_N, found_N2)


def _width(parts: Sequence[Ids]) -> int:
    return max(1, *map(len, parts))


def _padded(parts: Sequence[Ids], device: torch.device) -> Tensor:
    """Ids [B, T], 0 after each part's end."""
    width = _width(parts)
    return torch.tensor([[*part, *[0] * (width - len(part))] for part in parts], device=device)
