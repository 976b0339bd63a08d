"""Trains with a progress bar, and writes the run's report at the end."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from gnano.config.recipe import Recipe
from gnano.evals.runner import build_task_evaluator
from gnano.reporting.html_report import SampleTexts, write_html_report
from gnano.train.logging.progress_bar import ProgressBar
from gnano.train.trainer import RunResult, Trainer, open_trainer
from gnano.utils.terminal import best_effort, echo


@contextmanager
def open_training(recipe: Recipe, run_dir: Path, allow: Sequence[str] = ()) -> Iterator[Trainer]:
    """Yield the trainer of a run, which shows a progress bar."""
    progress = ProgressBar()
    notify = progress.show_message
    with (
        closing(progress.line),
        open_trainer(
            recipe, run_dir, progress.update, notify, allow, build_task_evaluator
        ) as trainer,
    ):
        yield trainer


def train_with_progress(recipe: Recipe, run_dir: Path, allow: Sequence[str] = ()) -> RunResult:
    """Start or resume a run with a progress bar, and print on the main rank where it ended."""
    with open_training(recipe, run_dir, allow) as trainer:
        result = trainer.fit()
    if result.is_main:
        _print_result(result)
    return result


def report_pretraining(result: RunResult) -> None:
    """Print on the main rank where a run ended, and write its report."""
    if result.is_main:
        _print_result(result)
        report_run(result.run)


def report_run(run: Path, samples: SampleTexts = ()) -> None:
    """Write the run's report and print its path; a failure is only noted."""
    with best_effort("report of the run"):
        echo(f"Report of the run: {write_html_report(run, samples=samples)}")


def _print_result(result: RunResult) -> None:
    echo(f"{result.step:,} of {result.total_steps:,} steps done; {result.checkpoint}")
