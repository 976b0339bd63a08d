"""What is a run examined by, beside its held-out text? Tasks, which the evals room knows.

Training does not: whoever starts the run brings an `OpenExam` along (`gnano pretrain` does).
"""

from collections.abc import Callable
from typing import Any, Protocol

from gnano.model import GPT
from gnano.tokenizer import Tokenizer
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe

Exam = Callable[[GPT, World, Callable[[], bool]], dict[str, Any]]
"""The figures of each task, of a model on its ranks; CutShortError where it is to stop."""


class OpenExam(Protocol):
    def __call__(self, recipe: Recipe, tokenizer: Tokenizer, world: World) -> Exam:
        """Called once, by all ranks; raises ValueError or OSError where items are missing."""


def open_for(
    opener: OpenExam | None, recipe: Recipe, tokenizer: Tokenizer, world: World
) -> Exam | None:
    """The exam that the recipe asks for."""
    if not recipe.train.tasks:
        return None
    if opener is None:
        raise ValueError("train.tasks needs who asks them: train(…, exam=gnano.evals.open_exam).")
    return opener(recipe, tokenizer, world)
