"""Conversations and preferences as token ids, with a mask of what is learned."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnano.data.sft.chat_template import AnyTemplate
from gnano.data.sft.conversations import Conversation, Preference, Turn
from gnano.data.sft.jinja_template import JinjaTemplate
from gnano.tokenizer.bpe import Tokenizer

MIN_PROMPT_TOKENS = 32  # kept of a prompt whose answer alone is too long


class Example(NamedTuple):
    """The token ids of one conversation, of which only the answers are learned."""

    ids: NDArray[np.int32]  # [n], n ≥ 2
    loss_mask: NDArray[np.bool_]  # [n]: true in answers, which include their end-of-text
    is_truncated: bool = False

    @property
    def examples(self) -> tuple["Example"]:
        """This example, for code that also handles pairs."""
        return (self,)

    @property
    def num_positions(self) -> int:
        """The number of positions in a row: one for each id but the first."""
        return len(self.ids) - 1

    @property
    def answer_start(self) -> int:
        """The index of the last answer's first id."""
        return int(np.flatnonzero(~self.loss_mask)[-1]) + 1

    def truncate(self, length: int) -> "Example":
        """Return the example in at most `length` positions.

        A longer one loses its start, so that the last answer stays complete. If the answer alone
        is too long, the example keeps the end of its prompt and loses the answer's end.
        """
        size, max_ids = len(self.ids), length + 1
        if size <= max_ids:
            return self
        start = min(size - max_ids, max(self.answer_start - min(MIN_PROMPT_TOKENS, length), 0))
        part = slice(start, start + max_ids)
        return Example(self.ids[part], self.loss_mask[part], is_truncated=True)


class PreferencePair(NamedTuple):
    """Two examples with the ids of the same prompt; each learns its answer."""

    chosen: Example
    rejected: Example
    is_truncated: bool = False

    @property
    def examples(self) -> tuple[Example, Example]:
        """Both examples."""
        return self.chosen, self.rejected

    @property
    def num_positions(self) -> int:
        """The number of positions of both examples in a row."""
        return self.chosen.num_positions + self.rejected.num_positions

    def truncate(self, length: int) -> "PreferencePair":
        """Return the pair in at most `length` positions for both examples.

        A longer one loses the start of the prompt in both examples. If the answers alone are too
        long, they lose their ends, the longer one first.
        """
        if self.num_positions <= length:
            return self
        start = self.chosen.answer_start
        answers = [example.ids[start:] for example in self.examples]
        max_ids = length + 2  # an example has one id more than positions
        # the minimum is at most half of an example
        min_prompt = min(MIN_PROMPT_TOKENS, start, max(length // 4, 1))
        prompt_size = max((max_ids - sum(map(len, answers))) // 2, min_prompt)
        max_ids -= 2 * prompt_size
        longest = max(max_ids - min(map(len, answers)), max_ids // 2)
        prompt = self.chosen.ids[start - prompt_size : start]
        chosen, rejected = (_build_example(prompt, answer[:longest]) for answer in answers)
        return PreferencePair(chosen, rejected, is_truncated=True)


def encode_conversation(
    conversation: Conversation, template: AnyTemplate, tokenizer: Tokenizer
) -> Example:
    """Return the ids of a text's start, then of prompt, answer and end-of-text for each answer."""
    if isinstance(template, JinjaTemplate):
        ids, learned = template.encode(conversation.turns, tokenizer)
        return Example(ids.astype(np.int32), learned)
    end, encode = [tokenizer.end_of_text_id], tokenizer.encode_array
    parts: list[Any] = [list(tokenizer.bos_ids)]
    is_learned = [False]
    for prompt, answer in template.render_turns(conversation):
        parts += [encode(prompt), encode(answer), end]
        is_learned += [False, True, True]
    loss_mask = np.repeat(is_learned, [len(part) for part in parts])
    return Example(np.concatenate(parts).astype(np.int32), loss_mask)


def encode_prompt(turns: Sequence[Turn], template: AnyTemplate, tokenizer: Tokenizer) -> list[int]:
    """Return the ids before the next answer, the same as in training."""
    if isinstance(template, JinjaTemplate):
        return template.encode_prompt(turns, tokenizer)
    turns = (*turns, Turn("assistant", ""))
    example = encode_conversation(Conversation(turns), template, tokenizer)
    ids: list[int] = example.ids[:-1].tolist()  # without the end of the empty answer
    return ids


def encode_preference(
    preference: Preference, template: AnyTemplate, tokenizer: Tokenizer
) -> PreferencePair:
    """Return two examples that learn only their last answer."""
    examples = []
    for answer in (preference.chosen, preference.rejected):
        turns = (*preference.turns, Turn("assistant", answer))
        example = encode_conversation(Conversation(turns), template, tokenizer)
        examples.append(_build_example(*np.split(example.ids, [example.answer_start])))
    chosen, rejected = examples
    return PreferencePair(chosen, rejected)


def _build_example(prompt: NDArray[Any], answer: NDArray[Any] | list[int]) -> Example:
    """Return an example that learns only the answer."""
    ids = np.concatenate([prompt, answer]).astype(np.int32)
    return Example(ids, np.arange(len(ids)) >= len(prompt))
