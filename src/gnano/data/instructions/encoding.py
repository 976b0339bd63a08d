"""Token ids of a conversation, and which of them are learned: the answers and their ends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnano.data.instructions.conversations import Conversation, Preference, Turn
from gnano.data.instructions.templates import ChatTemplate
from gnano.tokenizer.bpe import Tokenizer

MIN_PROMPT_TOKENS = 32  # tokens of the prompt that stay, where even the answer alone is too long


class Example(NamedTuple):
    ids: NDArray[np.int32]  # [n], n ≥ 2
    loss_mask: NDArray[np.bool_]  # [n]: is it part of an answer?
    is_truncated: bool = False  # is something of it missing?

    @property
    def examples(self) -> tuple["Example"]:
        return (self,)

    @property
    def num_positions(self) -> int:
        """Positions in a row: each id but the first is predicted from those before."""
        return len(self.ids) - 1

    @property
    def answer_start(self) -> int:
        """Where the last answer begins: after the last id that is not learned."""
        return int(np.flatnonzero(~self.loss_mask)[-1]) + 1

    def truncate(self, length: int) -> "Example":
        """Return the example in at most `length` positions.

        One that is too long loses its front, so that the last answer stays whole; where that
        is too long itself, it keeps the end of its prompt and loses the answer's end.
        """
        size, room = len(self.ids), length + 1
        if size <= room:
            return self
        start = min(size - room, max(self.answer_start - min(MIN_PROMPT_TOKENS, length), 0))
        part = slice(start, start + room)
        return Example(self.ids[part], self.loss_mask[part], is_truncated=True)


class PreferencePair(NamedTuple):
    """Two examples that begin with the same ids, the prompt's; each learns its answer."""

    chosen: Example
    rejected: Example
    is_truncated: bool = False  # is something of it missing?

    @property
    def examples(self) -> tuple[Example, Example]:
        return self.chosen, self.rejected

    @property
    def num_positions(self) -> int:
        return self.chosen.num_positions + self.rejected.num_positions

    def truncate(self, length: int) -> "PreferencePair":
        """Return the pair in at most `length` positions together.

        One that is too long loses the front of the prompt, on both sides alike; where the answers
        are too long themselves, they lose their ends, the longer one first.
        """
        if self.num_positions <= length:
            return self
        prompt = self.chosen.answer_start
        answers = [side.ids[prompt:] for side in self.examples]
        room, sizes = length + 2, [len(answer) for answer in answers]  # ids; each side has one more
        least = min(
            MIN_PROMPT_TOKENS, prompt, max(length // 4, 1)
        )  # of the prompt: half of a side at most
        kept = max((room - sum(sizes)) // 2, least)
        room -= 2 * kept
        longest = max(room - min(sizes), room // 2)
        front = self.chosen.ids[prompt - kept : prompt]
        chosen, rejected = (_build_example(front, answer[:longest]) for answer in answers)
        return PreferencePair(chosen, rejected, is_truncated=True)


def encode_conversation(
    conversation: Conversation, template: ChatTemplate, tokenizer: Tokenizer
) -> Example:
    """Return end-of-text, then prompt, answer and end-of-text for each answer."""
    ids, learned = [tokenizer.end_of_text_id], [False]
    for prompt, answer in template.render_turns(conversation):
        before = tokenizer.encode(prompt)
        after = [*tokenizer.encode(answer), tokenizer.end_of_text_id]
        ids += before + after
        learned += [False] * len(before) + [True] * len(after)
    return Example(np.array(ids, np.int32), np.array(learned))


def encode_prompt(turns: Sequence[Turn], template: ChatTemplate, tokenizer: Tokenizer) -> list[int]:
    """Return the ids, as in training, up to the answer that is to come after these turns."""
    example = encode_conversation(
        Conversation((*turns, Turn("assistant", ""))), template, tokenizer
    )
    ids: list[int] = example.ids[:-1].tolist()  # without the end of the empty answer
    return ids


def encode_preference(
    preference: Preference, template: ChatTemplate, tokenizer: Tokenizer
) -> PreferencePair:
    """Return two examples, of which only the last answer is learned."""
    turns = (*preference.turns, Turn("assistant", preference.chosen))
    chosen = encode_conversation(Conversation(turns), template, tokenizer)
    prompt, answer = np.split(chosen.ids, [chosen.answer_start])
    rejected = [*tokenizer.encode(preference.rejected), tokenizer.end_of_text_id]
    return PreferencePair(_build_example(prompt, answer), _build_example(prompt, rejected))


def _build_example(prompt: ArrayLike, answer: ArrayLike) -> Example:
    """Return an example that learns the answer alone."""
    before, after = np.asarray(prompt, np.int32), np.asarray(answer, np.int32)
    ids = np.concatenate([before, after])
    return Example(ids, np.arange(len(ids)) >= len(before))
