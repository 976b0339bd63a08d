"""How does an item look to a model? Its texts as ids, cut as the standard harness cuts them.

    context + answer ──▶ ids of the whole; those after the context's own ids are asked for

A text longer than the model's context loses its beginning. A document begins with end-of-text, as
in training, unless the model is asked without it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Self

from gnano.evals.items import Item
from gnano.evals.likelihood import Ids, Option, Question
from gnano.tokenizer import Tokenizer


class Wording:
    """A tokenizer's ids; `start` begins each text; `otherwise` one of which nothing else is known,
    and each document of several.

    `context` is that of the model.
    """

    def __init__(
        self, encode: Callable[[str], list[int]], start: Ids, otherwise: Ids, context: int
    ) -> None:
        self.encode, self.start, self.otherwise = encode, start, otherwise
        self.context = context
        # the answers of an item have one context, most often
        self.encode_context = lru_cache(maxsize=4)(encode)

    @classmethod
    def ours(cls, tokenizer: Tokenizer, context: int, start: bool = True) -> Self:
        """Of our models: a text begins with end-of-text, as in training."""
        end = (tokenizer.end_of_text,)
        return cls(tokenizer.encode, end if start else (), end, context)

    def question(self, item: Item) -> Question:
        return Question(tuple(self.option(*pair) for pair in item.options))

    def questions(self, items: Sequence[Item]) -> list[Question]:
        return [self.question(item) for item in items]

    def option(self, context: str, continuation: str) -> Option:
        # a blank at the end of a context belongs to the word that follows it
        bare = context.rstrip()
        before = self.encode_context(bare)
        whole = self.encode(bare + context[len(bare) :] + continuation)
        # where a token spans the border, the context keeps its own ids and the answer the rest
        asked = whole[len(before) :] or self.encode(continuation)
        start = self.start if self.start or before else self.otherwise
        ids = (*start, *before, *asked)[-(self.context + 1) :]
        return Option(ids, min(len(asked), len(ids) - 1))
