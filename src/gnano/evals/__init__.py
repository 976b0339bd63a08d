"""The evals room: how good is a model?"""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.evals.answers import Answer, Answers, answer, choose_questions, repetition
    from gnano.evals.before_after import BeforeAfter, compare_answers

__all__ = [
    "Answer",
    "Answers",
    "BeforeAfter",
    "answer",
    "choose_questions",
    "compare_answers",
    "repetition",
]

__getattr__ = lazily(
    __name__,
    {
        "Answer": "answers",
        "Answers": "answers",
        "BeforeAfter": "before_after",
        "answer": "answers",
        "choose_questions": "answers",
        "compare_answers": "before_after",
        "repetition": "answers",
    },
)
