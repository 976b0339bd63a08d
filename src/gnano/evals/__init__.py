"""The evals room: how good is a model?"""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.evals.answers import Answer, Answers, answer, choose_questions, repetition
    from gnano.evals.before_after import BeforeAfter, compare_answers
    from gnano.evals.judging import Verdict, Wanted, judge
    from gnano.evals.smoke import Smoke, smoke_test

__all__ = [
    "Answer",
    "Answers",
    "BeforeAfter",
    "Smoke",
    "Verdict",
    "Wanted",
    "answer",
    "choose_questions",
    "compare_answers",
    "judge",
    "repetition",
    "smoke_test",
]

__getattr__ = lazily(
    __name__,
    {
        "Answer": "answers",
        "Answers": "answers",
        "BeforeAfter": "before_after",
        "Smoke": "smoke",
        "Verdict": "judging",
        "Wanted": "judging",
        "answer": "answers",
        "choose_questions": "answers",
        "compare_answers": "before_after",
        "judge": "judging",
        "repetition": "answers",
        "smoke_test": "smoke",
    },
)
