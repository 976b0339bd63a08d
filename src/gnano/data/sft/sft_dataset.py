"""Datasets of packed examples (SFT) and packed answer pairs (DPO), and the DPO loss.

A row has T positions. Each of its examples is a segment; attention does not cross segments:

    inputs    p p p a a a │ p p a a │ 0 0        p prompt, a answer, 0 padding
    targets   · · a a a e │ · a a e │ · ·        e end-of-text, · not learned
    segments  0 0 0 0 0 0 │ 1 1 1 1 │ 2 2

The two examples of a pair are in the same row, as two segments with the same prompt, so that its
loss needs no other row. The items of each source are packed once; `EpochSampler` shuffles the rows
for each epoch.

    inputs    p p p a a a │ p p p b b │ …        p prompt, a chosen, b rejected
    targets   · · a a a e │ · · b b e │ …        e end-of-text, · not learned
    pairs     0 0 0 0 0 0 │ 0 0 0 0 0 │ …        in answers: the pair's number
    signs     0 0 + + + + │ 0 0 − − − │ …

A pair's margin is log p(chosen) − log p(rejected) = −Σ signs · nll. The DPO loss increases it above
the reference model's margin: −log σ(β (margin − reference)), summed over the pairs
(Rafailov et al. 2023, https://arxiv.org/abs/2305.18290).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gnano.data.packed_dataset import IGNORE_INDEX, Batch, PackedDataset
from gnano.data.packing import first_fit_decreasing
from gnano.data.sampler import EpochSampler
from gnano.data.sft.encoding import Example, PreferencePair

ItemT = TypeVar("ItemT", bound=Example | PreferencePair)
BatchT = TypeVar("BatchT", bound="Batch | PreferenceBatch")


class PackedExamples(ABC, Generic[ItemT, BatchT]):
    """Rows of `block_size` positions; without `packing` each has one item."""

    item_name: str  # for messages

    def __init__(
        self,
        sources: Sequence[Sequence[ItemT]],
        weights: Sequence[float],
        block_size: int,
        seed: int,
        packing: bool = True,
    ) -> None:
        self.block_size = block_size
        self.items: list[ItemT] = []
        self.rows: list[list[int]] = []  # of indices into `items`, source by source
        counts = []
        for source in sources:
            first = len(self.items)
            self.items += cast("list[ItemT]", [item.truncate(block_size) for item in source])
            sizes = [item.num_positions for item in self.items[first:]]
            single_rows = [[i] for i in range(len(sizes))]
            rows = first_fit_decreasing(sizes, block_size) if packing else single_rows
            self.rows += ([first + i for i in row] for row in rows)
            counts.append(len(rows))
        self.row_offsets = [0, *accumulate(counts)]
        self.sampler = EpochSampler(counts, weights, seed)

    @abstractmethod
    def collate(self, rows: Sequence[Sequence[int]]) -> BatchT:
        """Return the batch of these rows of indices into `items`."""

    def read_batch(self, samples: Sequence[int]) -> BatchT:
        """Return the batch of these samples."""
        return self.collate([self.rows[self.locate(sample)[1]] for sample in samples])

    def locate(self, sample: int) -> tuple[int, int]:
        """Return the epoch and the row of a sample."""
        epoch, source, row = self.sampler.locate(sample)
        return epoch, self.row_offsets[source] + row

    def missing(self, samples: Sequence[int]) -> str | None:
        """Return None: no data of these samples is missing, unlike in a growing corpus."""
        return None

    def packing_stats(self) -> str:
        """Return a line about the padding, the tokens, and the truncated items."""
        name, positions = self.item_name, len(self.rows) * self.block_size
        used = sum(item.num_positions for item in self.items)
        examples = [example for item in self.items for example in item.examples]
        learned = sum(int(example.loss_mask[1:].sum()) for example in examples)
        truncated = sum(item.is_truncated for item in self.items)
        return (
            f"{len(self.items):,} {name} in {len(self.rows):,} rows of {self.block_size:,}: "
            f"{1 - used / positions:.1%} padding, {used:,} tokens used, {learned:,} of them "
            f"answers, {truncated:,} {name} cut"
        )

    def _lay_out(
        self, rows: Sequence[Sequence[int]]
    ) -> tuple[tuple[NDArray[Any], ...], list[tuple[int, slice]]]:
        """Return inputs, targets and segments [B, T], and the row and slice of each example."""
        shape = len(rows), self.block_size
        inputs, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE_INDEX, np.int64)
        segments = np.zeros(shape, np.int32)
        places = []
        for number, row in enumerate(rows):
            start = segment = 0
            for ids, loss_mask, _ in (example for i in row for example in self.items[i].examples):
                place = number, slice(start, start + len(ids) - 1)
                inputs[place] = ids[:-1]
                targets[place] = np.where(loss_mask[1:], ids[1:], IGNORE_INDEX)
                segments[place] = segment
                start, segment = place[1].stop, segment + 1
                places.append(place)
            segments[number, start:] = segment
        return (inputs, targets, segments), places


class SFTDataset(PackedExamples[Example, Batch]):
    """Rows of examples, for supervised fine-tuning."""

    item_name = "examples"

    def collate(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Return the batch of these rows of indices into `items`."""
        arrays, _ = self._lay_out(rows)
        return Batch(*map(torch.from_numpy, arrays))


class PreferenceDataset(PackedExamples[PreferencePair, "PreferenceBatch"]):
    """Rows of answer pairs, for DPO.

    `reference_margins` has each pair's margin under the reference model, in the order of `items`;
    it is 0 until the caller has computed it.
    """

    item_name = "pairs"

    def __init__(
        self,
        sources: Sequence[Sequence[PreferencePair]],
        weights: Sequence[float],
        block_size: int,
        seed: int,
        beta: float,
        packing: bool = True,
    ) -> None:
        super().__init__(sources, weights, block_size, seed, packing)
        self.beta = beta
        self.reference_margins: NDArray[np.float32] = np.zeros(len(self.items), np.float32)

    def collate(self, rows: Sequence[Sequence[int]]) -> "PreferenceBatch":
        """Return the batch of these rows of indices into `items`."""
        arrays, places = self._lay_out(rows)
        targets = arrays[1]
        pairs, signs = np.zeros_like(targets), np.zeros(targets.shape, np.float32)
        for number, place in enumerate(places):  # chosen and rejected alternate
            learned = targets[place] != IGNORE_INDEX
            pairs[place] = learned * (number // 2)
            signs[place] = learned * (-1 if number % 2 else 1)
        reference = self.reference_margins[[index for row in rows for index in row]]
        more = pairs, signs, reference, np.float32(self.beta)
        return PreferenceBatch(*map(torch.as_tensor, (*arrays, *more)))


class PreferenceBatch(NamedTuple):
    """A batch of answer pairs, with its DPO loss; P is the number of pairs."""

    inputs_BT: Tensor  # int64
    targets_BT: Tensor  # int64: the answers' tokens; IGNORE_INDEX elsewhere
    segments_BT: Tensor | None  # int32: two for each pair; None: attention crosses them
    pair_index_BT: Tensor  # int64: on targets, the pair's index in the batch; 0 elsewhere
    signs_BT: Tensor  # float32: 1 on the chosen answer's targets, −1 on the rejected one's; else 0
    reference_margins_P: Tensor  # float32: the margins under the reference model
    beta: Tensor  # float32, no dimensions: the scale of the margins

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> "PreferenceBatch":
        """Return the batch with `function` applied to each tensor."""
        return PreferenceBatch._make(None if one is None else function(one) for one in self)

    def count_targets(self) -> Tensor:
        """Return the number of pairs, on the batch's device."""
        return torch.full((), len(self.reference_margins_P), device=self.reference_margins_P.device)

    def compute_margins(self, nll_BT: Tensor) -> Tensor:
        """Return log p(chosen) − log p(rejected) of each pair, from the loss of each position."""
        pair_P1 = torch.arange(len(self.reference_margins_P), device=nll_BT.device)[:, None]
        signed_N = (self.signs_BT * nll_BT).flatten()
        # not index_add_, whose order of additions on a GPU is random
        return -torch.where(self.pair_index_BT.flatten() == pair_P1, signed_N, 0).sum(1)

    def loss_fn(self, nll_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the pairs' DPO losses and its derivative by each position's loss."""
        logits_P = self.beta * (self.compute_margins(nll_BT) - self.reference_margins_P)
        loss = -F.logsigmoid(logits_P).sum()
        slopes_P = self.beta * torch.sigmoid(-logits_P)
        # padding has pair index 0 and sign 0, even in a batch without pairs
        return loss, F.pad(slopes_P, (0, 1))[self.pair_index_BT] * self.signs_BT


TrainingDataset = PackedDataset | SFTDataset | PreferenceDataset
AnyBatch = Batch | PreferenceBatch
