"""Trains with a progress bar, and writes the run's report at the end."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gnano.config.recipe import Recipe
from gnano.evals.train_eval import build_task_evaluator
from gnano.reporting.html_report import SampleTexts, write_html_report
from gnano.train import trainer
from gnano.train.logging.progress_bar import ProgressBar
from gnano.train.trainer import RunResult
from gnano.utils.terminal import best_effort, echo


def pretrain(recipe: Recipe, run_dir: Path, allow: Sequence[str] = ()) -> RunResult:
    """Start or resume a recipe's pretraining, and write its report.

    Raises ValueError for a fine-tuning recipe without a base to start from.
    """
    if not recipe.train.init_from:
        _ = recipe.pretraining_data
    result = train_with_progress(recipe, run_dir, allow)
    if result.is_main:
        report_run(result.run)
    return result


def train_with_progress(recipe: Recipe, run_dir: Path, allow: Sequence[str] = ()) -> RunResult:
    """Start or resume a run with a progress bar, and print on the main rank where it ended."""
    progress = ProgressBar()
    with closing(progress.line):
        result = trainer.train(
            recipe, run_dir, progress.update, progress.show_message, allow, build_task_evaluator
        )
    if result.is_main:
        echo(f"{result.step:,} of {result.total_steps:,} steps done; {result.checkpoint}")
    return result


def report_run(run: Path, samples: SampleTexts = ()) -> None:
    """Write the run's report and print its path; a failure is only noted."""
    with best_effort("report of the run"):
        echo(f"Report of the run: {write_html_report(run, samples=samples)}")
