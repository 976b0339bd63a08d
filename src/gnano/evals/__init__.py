"""Evaluation of models."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.evals.answers import Answer, Answers, BeforeAfter, answer, choose_questions
    from gnano.evals.answers import compare_answers as compare_answers
    from gnano.evals.asked import Asked
    from gnano.evals.comparing import Comparison, compare_models
    from gnano.evals.comparison_plot import check_plot, plot_comparison
    from gnano.evals.comparison_table import comparison_text
    from gnano.evals.contamination import Overlap, Shared, find_contamination
    from gnano.evals.copying import Copied, longest_copied
    from gnano.evals.evaluation import Accuracy, Evaluation, Score, evaluate, score
    from gnano.evals.evaluation import write_evaluation as write_evaluation
    from gnano.evals.exam import open_exam
    from gnano.evals.gathering import TASKS, Item, Sheet, gather
    from gnano.evals.harness import measure_by_harness
    from gnano.evals.judging import Verdict, Wanted, judge, repetition
    from gnano.evals.likelihood import GPTReader, log_likelihoods
    from gnano.evals.saved import default_path, result_path, saved_results
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
        "TASKS": "gathering",
        "Accuracy": "evaluation",
        "Answer": "answers",
        "Answers": "answers",
        "Asked": "asked",
        "BeforeAfter": "answers",
        "Comparison": "comparing",
        "Copied": "copying",
        "Evaluation": "evaluation",
        "GPTReader": "likelihood",
        "Item": "gathering",
        "Overlap": "contamination",
        "Score": "evaluation",
        "Shared": "contamination",
        "Sheet": "gathering",
        "Smoke": "smoke",
        "Subject": "subject",
        "Verdict": "judging",
        "Wanted": "judging",
        "answer": "answers",
        "check_plot": "comparison_plot",
        "choose_questions": "answers",
        "compare_answers": "answers",
        "compare_models": "comparing",
        "comparison_text": "comparison_table",
        "default_path": "saved",
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
        "repetition": "judging",
        "result_path": "saved",
        "saved_results": "saved",
        "score": "evaluation",
        "smoke_test": "smoke",
        "write_evaluation": "evaluation",
    },
)
