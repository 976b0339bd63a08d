"""Which ids does a conversation have, and which of them are learned? Answers, and their ends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.instructions.conversations import Conversation, Turn
from gnano.data.instructions.templates import Template
from gnano.tokenizer import Tokenizer

LEAST = 32  # tokens of the prompt that stay, where even the answer alone is too long


class Example(NamedTuple):
    ids: NDArray[np.int32]  # [n], n ≥ 2
    learned: NDArray[np.bool_]  # [n]: is it part of an answer?
    cut: bool = False  # is something of it missing?

    @property
    def examples(self) -> tuple["Example"]:
        return (self,)

    @property
    def positions(self) -> int:
        """What it takes in a row: each id but the first is predicted from those before."""
        return len(self.ids) - 1


def encode(conversation: Conversation, template: Template, tokenizer: Tokenizer) -> Example:
    """End-of-text, then prompt, answer and end-of-text for each answer."""
    ids, learned = [tokenizer.end_of_text], [False]
    for prompt, answer in template.prompts(conversation):
        before = tokenizer.encode(prompt)
        after = [*tokenizer.encode(answer), tokenizer.end_of_text]
        ids += before + after
        learned += [False] * len(before) + [True] * len(after)
    return Example(np.array(ids, np.int32), np.array(learned))


def encode_prompt(turns: Sequence[Turn], template: Template, tokenizer: Tokenizer) -> list[int]:
    """The ids, as in training, up to the answer that is to come after these turns."""
    example = encode(Conversation((*turns, Turn("assistant", ""))), template, tokenizer)
    ids: list[int] = example.ids[:-1].tolist()  # without the end of the empty answer
    return ids


def fitted(example: Example, length: int) -> Example:
    """The example in at most `length` positions.

    One that is too long loses its front, so that the last answer stays whole; where that
    is too long itself, it keeps the end of its prompt and loses the answer's end.
    """
    size, room = len(example.ids), length + 1
    if size <= room:
        return example
    # of the last answer: what follows the last id that is not learned
    answer = int(np.flatnonzero(~example.learned)[-1]) + 1
    start = min(size - room, max(answer - min(LEAST, length), 0))
    part = slice(start, start + room)
    return Example(example.ids[part], example.learned[part], cut=True)
