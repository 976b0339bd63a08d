"""Which pairs of answers are in sample i? They are packed as single examples are.

A pair lies whole in one row, as two segments, each with the prompt of its own, so that its
loss needs no other row:

    │ prompt, chosen │ prompt, rejected │ prompt, chosen │ prompt, rejected │ padding │
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gnano.data.batches import IGNORE
from gnano.data.instructions.conversations import Conversation, Turn
from gnano.data.instructions.encoding import LEAST, Example
from gnano.data.instructions.packed_rows import PackedRows
from gnano.data.instructions.preference_batch import PreferenceBatch
from gnano.data.instructions.preferences import Preference
from gnano.data.instructions.templates import Template
from gnano.tokenizer import Tokenizer


class Pair(NamedTuple):
    """Both begin with the same ids, the prompt's, and each learns its answer."""

    chosen: Example
    rejected: Example
    cut: bool = False  # is something of it missing?

    @property
    def examples(self) -> tuple[Example, Example]:
        return self.chosen, self.rejected

    @property
    def positions(self) -> int:
        """What it takes in a row."""
        return self.chosen.positions + self.rejected.positions


def encode_pair(preference: Preference, template: Template, tokenizer: Tokenizer) -> Pair:
    """End-of-text, the prompt with all earlier answers, and each answer with its end."""
    whole = Conversation((*preference.turns, Turn("assistant", preference.chosen)))
    *earlier, (last, _) = template.prompts(whole)
    prompt = [tokenizer.end_of_text]
    for question, answer in earlier:
        prompt += [*tokenizer.encode(question), *tokenizer.encode(answer), tokenizer.end_of_text]
    prompt += tokenizer.encode(last)
    chosen, rejected = (
        _example(prompt, [*tokenizer.encode(answer), tokenizer.end_of_text])
        for answer in (preference.chosen, preference.rejected)
    )
    return Pair(chosen, rejected)


def fitted_pair(pair: Pair, length: int) -> Pair:
    """The pair in at most `length` positions together.

    One that is too long loses the front of the prompt, on both sides alike; where the answers
    are too long themselves, they lose their ends, the longer one first.
    """
    if pair.positions <= length:
        return pair
    prompt = int(np.flatnonzero(~pair.chosen.learned)[-1]) + 1
    answers = [side.ids[prompt:] for side in (pair.chosen, pair.rejected)]
    room, sizes = length + 2, [len(answer) for answer in answers]  # ids; each side has one more
    least = min(LEAST, prompt, max(length // 4, 1))  # of the prompt: half of a side at most
    kept = max((room - sum(sizes)) // 2, least)
    room -= 2 * kept
    most = max(room - min(sizes), room // 2)
    front = pair.chosen.ids[prompt - kept : prompt]
    chosen, rejected = (_example(front, answer[:most]) for answer in answers)
    return Pair(chosen, rejected, cut=True)


def _example(prompt: ArrayLike, answer: ArrayLike) -> Example:
    before, after = np.asarray(prompt, np.int32), np.asarray(answer, np.int32)
    ids = np.concatenate([before, after])
    return Example(ids, np.arange(len(ids)) >= len(before))


class PairRows(PackedRows[Pair, PreferenceBatch]):
    """Rows of `length` positions; with `packing` off, each has one pair.

    `reference` holds each pair's margin under the reference model, in the order of `items`; it is
    0 until someone has measured it.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Pair]],
        weights: Sequence[float],
        length: int,
        seed: int,
        beta: float,
        packing: bool = True,
    ) -> None:
        fitting = ((fitted_pair(pair, length) for pair in source) for source in sources)
        super().__init__(fitting, weights, length, seed, packing, "pairs")
        self.beta = beta
        self.reference: NDArray[np.float32] = np.zeros(len(self.items), np.float32)

    def of_rows(self, rows: Sequence[Sequence[int]]) -> PreferenceBatch:
        shape = len(rows), self.length
        inputs, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        segments, pairs = np.zeros(shape, np.int32), np.zeros(shape, np.int64)
        signs = np.zeros(shape, np.float32)
        taken = [index for row in rows for index in row]
        count = 0
        for number, row in enumerate(rows):
            start = segment = 0
            for index in row:
                pair = self.items[index]
                for (ids, learned, _), sign in ((pair.chosen, 1), (pair.rejected, -1)):
                    part = slice(start, start + len(ids) - 1)
                    inputs[number, part] = ids[:-1]
                    targets[number, part] = np.where(learned[1:], ids[1:], IGNORE)
                    segments[number, part] = segment
                    pairs[number, part] = learned[1:] * count
                    signs[number, part] = learned[1:] * sign
                    start, segment = part.stop, segment + 1
                count += 1
            segments[number, start:] = segment
        reference, beta = self.reference[taken], np.float32(self.beta)
        arrays = inputs, targets, segments, pairs, signs, reference, beta
        return PreferenceBatch(*map(torch.as_tensor, arrays))
