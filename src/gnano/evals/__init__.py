"""The evals room: how good is a model?"""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.evals.answers import Answer, Answers, answer, choose_questions, repetition
    from gnano.evals.asked import Asked
    from gnano.evals.before_after import BeforeAfter, compare_answers
    from gnano.evals.comparing import Comparison, compare_models
    from gnano.evals.comparison_plot import check_plot, plot_comparison
    from gnano.evals.comparison_table import comparison_text
    from gnano.evals.contamination import Overlap, Shared, find_contamination
    from gnano.evals.copying import Copied, longest_copied
    from gnano.evals.evaluation import Evaluation, default_path, evaluate, write_evaluation
    from gnano.evals.exam import open_exam
    from gnano.evals.gathering import Sheet, gather
    from gnano.evals.harness import measure_by_harness
    from gnano.evals.items import TASKS, Item
    from gnano.evals.judging import Verdict, Wanted, judge
    from gnano.evals.likelihood import GPTReader, log_likelihoods
    from gnano.evals.saved import result_path, saved_results
    from gnano.evals.scores import Accuracy, Score, score
    from gnano.evals.smoke import Smoke, smoke_test
    from gnano.evals.subject import Subject, open_subject

__all__ = [
    "TASKS",
    "Accuracy",
    "Answer",
    "Answers",
    "Asked",
    "BeforeAfter",
    "Comparison",
    "Copied",
    "Evaluation",
    "GPTReader",
    "Item",
    "Overlap",
    "Score",
    "Shared",
    "Sheet",
    "Smoke",
    "Subject",
    "Verdict",
    "Wanted",
    "answer",
    "check_plot",
    "choose_questions",
    "compare_answers",
    "compare_models",
    "comparison_text",
    "default_path",
    "evaluate",
    "find_contamination",
    "gather",
    "judge",
    "log_likelihoods",
    "longest_copied",
    "measure_by_harness",
    "open_exam",
    "open_subject",
    "plot_comparison",
    "repetition",
    "result_path",
    "saved_results",
    "score",
    "smoke_test",
    "write_evaluation",
]

__getattr__ = lazily(
    __name__,
    {
        "TASKS": "items",
        "Accuracy": "scores",
        "Answer": "answers",
        "Answers": "answers",
        "Asked": "asked",
        "BeforeAfter": "before_after",
        "Comparison": "comparing",
        "Copied": "copying",
        "Evaluation": "evaluation",
        "GPTReader": "likelihood",
        "Item": "items",
        "Overlap": "contamination",
        "Score": "scores",
        "Shared": "contamination",
        "Sheet": "gathering",
        "Smoke": "smoke",
        "Subject": "subject",
        "Verdict": "judging",
        "Wanted": "judging",
        "answer": "answers",
        "check_plot": "comparison_plot",
        "choose_questions": "answers",
        "compare_answers": "before_after",
        "compare_models": "comparing",
        "comparison_text": "comparison_table",
        "default_path": "evaluation",
        "evaluate": "evaluation",
        "find_contamination": "contamination",
        "gather": "gathering",
        "judge": "judging",
        "log_likelihoods": "likelihood",
        "longest_copied": "copying",
        "measure_by_harness": "harness",
        "open_exam": "exam",
        "open_subject": "subject",
        "plot_comparison": "comparison_plot",
        "repetition": "answers",
        "result_path": "saved",
        "saved_results": "saved",
        "score": "scores",
        "smoke_test": "smoke",
        "write_evaluation": "evaluation",
    },
)
