"""Fine-tunes a base model, and compares the two on held-out questions.

gnano sft   on answers to questions      gnano dpo   on preferred and rejected answers
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gnano.checkpoint.run_checkpoints import best_checkpoint, list_checkpoints
from gnano.config.recipe import Recipe
from gnano.evals.sft_compare import AnswerComparison, compare_answers
from gnano.reporting.training import report_run, train_with_progress
from gnano.train.lineage import find_base
from gnano.train.trainer import RunResult
from gnano.utils.jsonl_log import read_metrics
from gnano.utils.terminal import StatusLine, best_effort, echo


class FinetuneResult(NamedTuple):
    """Result of a fine-tuning run, with the comparison if the run is complete."""

    result: RunResult
    comparison: AnswerComparison | None  # on the main rank of a finished run


def finetune(
    recipe: Recipe,
    run_dir: Path,
    allow: Sequence[str] = (),
    answers: int = 24,
    max_tokens: int = 128,
) -> FinetuneResult:
    """Start or resume a fine-tuning run; once it is complete, compare the model with its base.

    Both models answer `answers` held-out questions, with at most `max_tokens` tokens each.
    """
    kind = recipe.tuning_data.kind  # refuses a recipe of texts before anything starts
    result = train_with_progress(recipe, run_dir, allow)
    if not result.is_main:
        return FinetuneResult(result, None)
    if best := best_checkpoint(list_checkpoints(run_dir)):
        name = "the newest" if best == result.checkpoint else str(best)
        echo(f"The checkpoint with the lowest held-out loss: {name}")
    if result.is_finished and kind == "instructions":
        with best_effort("comparison with the base"):
            return FinetuneResult(result, _compare_with_base(recipe, result, answers, max_tokens))
    return FinetuneResult(result, None)


def _compare_with_base(
    recipe: Recipe, result: RunResult, num_questions: int, max_tokens: int
) -> AnswerComparison:
    base = find_base(recipe.train.init_from, result.run)
    assert base is not None
    metrics = read_metrics(result.run / "metrics.jsonl")
    models = base.folder, result.checkpoint, result.run
    with closing(StatusLine()) as line:
        comparison = compare_answers(
            recipe.tuning_data, *models, metrics, num_questions, max_tokens, line.update
        )
    if comparison.losses or comparison.questions:
        echo(f"\n{comparison.format_table()}\n")
        echo(f"Answers side by side: {result.run / 'answers.md'}")
    else:
        share = recipe.tuning_data.heldout_fraction
        echo(f"Nothing to compare: no question is held out (data.heldout_fraction is {share:.0%}).")
    report_run(result.run, comparison.report_samples())
    return comparison
