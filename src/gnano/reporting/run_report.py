"""Trains as the commands do, and writes the report of the run, `report.html`.

    gnano pretrain   train_with_progress ─▶ report_run
    gnano sft        train_with_progress ─▶ answers of the model and of its base ─▶ report_run
    gnano dpo        train_with_progress

The report is one page to open, mail or keep: name and state, headline figures, curves (one picture
for light mode, one for dark mode), tables of held-out text and tasks, facts, samples with the
prompt marked, and the recipe. It loads nothing from elsewhere, and the template `report.html.j2`
escapes all text: what a model writes is untrusted.
"""

import base64
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from gnano.checkpoint.run_checkpoints import best_checkpoint, list_checkpoints
from gnano.config.recipe import Recipe
from gnano.evals.runner import build_task_evaluator
from gnano.evals.sft_compare import AnswerComparison, compare_answers
from gnano.reporting.plots import DARK_PALETTE, Curve, read_curves, render_png_plot, smooth_curve
from gnano.train.lineage import find_base
from gnano.train.logging.metrics_logger import ProgressBar
from gnano.train.trainer import RunResult, train
from gnano.utils.files import atomic_write_text
from gnano.utils.formatting import format_duration
from gnano.utils.jsonl_log import read_metrics
from gnano.utils.platform_support import is_installed
from gnano.utils.templates import render_template
from gnano.utils.terminal import StatusLine, best_effort, echo

SampleTexts = Sequence[tuple[str, str, str]]  # title, prompt, continuation


def train_with_progress(recipe: Recipe, run_dir: Path, allow: Sequence[str] = ()) -> RunResult:
    """Start or resume a run with a progress bar, and print on the main rank where it ended."""
    progress = ProgressBar()
    with closing(progress.line):
        result = train(
            recipe, run_dir, progress.update, progress.show_message, allow, build_task_evaluator
        )
    if result.is_main:
        echo(f"{result.step:,} of {result.total_steps:,} steps done; {result.checkpoint}")
    return result


def finetune(
    recipe: Recipe,
    run_dir: Path,
    allow: Sequence[str] = (),
    answers: int = 24,
    max_tokens: int = 128,
) -> tuple[RunResult, AnswerComparison | None]:
    """Start or resume a fine-tuning run; once it is complete, compare the model with its base.

    Both models answer `answers` held-out questions, with at most `max_tokens` tokens each. The
    comparison is None on other ranks than the main one, and if the run is not finished.
    """
    data = recipe.tuning_data  # refuses a recipe of texts before anything starts
    result = train_with_progress(recipe, run_dir, allow)
    if not result.is_main:
        return result, None
    if best := best_checkpoint(list_checkpoints(run_dir)):
        name = "the newest" if best == result.checkpoint else str(best)
        echo(f"The checkpoint with the lowest held-out loss: {name}")
    if not result.is_finished or data.kind != "instructions":
        return result, None
    with best_effort("comparison with the base"):
        base = find_base(recipe.train.init_from, result.run)
        assert base is not None
        metrics = read_metrics(result.run / "metrics.jsonl")
        models = base.folder, result.checkpoint, result.run
        with closing(StatusLine()) as line:
            comparison = compare_answers(data, *models, metrics, answers, max_tokens, line.update)
        if comparison.losses or comparison.questions:
            echo(f"\n{comparison.format_table()}\n")
            echo(f"Answers side by side: {result.run / 'answers.md'}")
        else:
            share = f"data.heldout_fraction is {data.heldout_fraction:.0%}"
            echo(f"Nothing to compare: no question is held out ({share}).")
        report_run(result, comparison.report_samples())
        return result, comparison
    return result, None


def report_run(result: RunResult, samples: SampleTexts = ()) -> None:
    """Write the run's report on the main rank, and print its path; a failure is only noted."""
    if result.is_main:
        with best_effort("report of the run"):
            echo(f"Report of the run: {write_html_report(result.run, samples=samples)}")


def write_html_report(
    run: Path, facts: Mapping[str, str] | None = None, samples: SampleTexts = ()
) -> Path:
    """Write `run/report.html` from the run's files, finished or not, and return its path.

    `facts` become rows of a table (hardware, cost, …), `samples` are texts of the model. Raises
    FileNotFoundError or ValueError if the run has not logged a step yet.
    """
    metrics = read_metrics(run / "metrics.jsonl")
    finished = bool(metrics[-1].get("final"))
    loss, heldout, tasks = read_curves(metrics)
    latest = {name: value for row in metrics for name, value in row.items() if value is not None}
    rates = [row["tokens_per_s"] for row in metrics if row.get("tokens_per_s") is not None]
    pictures = None
    if is_installed("matplotlib"):
        with best_effort("picture in the page"):
            plots = render_png_plot(metrics, ""), render_png_plot(metrics, "", DARK_PALETTE)
            pictures = [base64.b64encode(png).decode("ascii") for png in plots]
    recipe = run / "recipe.toml"
    last_bits = "all held-out text" if finished else ""
    total, sources = heldout[:1], heldout[1:]
    page = render_template(
        Path(__file__).with_name("report.html.j2"),
        {"count": _format_count, "duration": format_duration},
        name=run.resolve().name,
        finished=finished,
        step=metrics[-1]["step"],
        latest=latest,
        smoothed_loss=smooth_curve(loss).values[-1] if len(loss.steps) else None,
        bits_per_byte=heldout[0].values[-1] if heldout else None,
        median_rate=median(rates) if rates else None,
        pictures=pictures,
        has_tasks=bool(tasks),
        tables=[
            _curve_table("Held-out bits per byte", "source", sources + total, total, last_bits),
            _curve_table("Accuracy on tasks, ± standard error", "task", tasks, tasks),
            ("Facts", (), [[*fact] for fact in (facts or {}).items()]),
        ],
        samples=samples,
        recipe=recipe.read_text("utf-8", errors="replace") if recipe.is_file() else "",
    )
    path = run / "report.html"
    atomic_write_text(path, page)
    return path


def _curve_table(
    title: str, header: str, curves: Sequence[Curve], dated: Sequence[Curve], last: str = ""
) -> tuple[str, list[str], list[list[str]]]:
    """Return title, headers and rows: the curves at the first and last step (`last`) of `dated`."""
    steps = [step for curve in dated for step in curve.steps]
    columns = {step: f"step {step:,.0f}" for step in (min(steps), max(steps))} if steps else {}
    if columns and last:
        columns[max(columns)] = last
    metric = ["metric"] if any(curve.metric for curve in curves) else []
    rows = []
    for curve in curves:
        cells = {step: curve.format_point(index) for index, step in enumerate(curve.steps)}
        values = [cells.get(step, "–") for step in columns]
        rows.append([curve.name, *values, *filter(None, [curve.metric])])
    return title, [header, *columns.values(), *metric], rows


def _format_count(count: float) -> str:
    """Return a shortened count: 49152 -> 49.2 k, 13107200000 -> 13.1 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return f"{count:.0f}"
