"""Writes the report of a run, `report.html`: one page to open, mail or keep.

    name and state
    headline figures
    curves                          (one picture for light mode, one for dark mode)
    held-out table · tasks · facts
    samples, the prompt marked
    the complete recipe, folded

The page loads nothing from elsewhere, and the template `report.html.j2` escapes all text: what a
model writes is untrusted.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gnano.reporting.plots import render_png_plot
from gnano.reporting.run_metrics import (
    Curve,
    MetricRows,
    TaskCurve,
    format_accuracy,
    heldout_curves,
    loss_curve,
    smooth_curve,
    task_curves,
)
from gnano.utils.files import atomic_write_text
from gnano.utils.formatting import format_duration
from gnano.utils.jsonl_log import read_metrics
from gnano.utils.platform_support import is_installed
from gnano.utils.plot_style import DARK_PALETTE
from gnano.utils.terminal import best_effort

SampleTexts = Sequence[tuple[str, str, str]]  # title, prompt, continuation
HtmlTable = tuple[str, Sequence[str], list[list[str]]]  # title, headers, rows


def write_html_report(
    run: Path, facts: Mapping[str, str] | None = None, samples: SampleTexts = ()
) -> Path:
    """Write `run/report.html` from the run's files, finished or not, and return its path.

    `facts` become rows of a table (hardware, cost, …), `samples` are texts of the model. Raises
    FileNotFoundError or ValueError if the run has not logged a step yet.
    """
    metrics = read_metrics(run / "metrics.jsonl")
    finished = bool(metrics[-1].get("final"))
    recipe = run / "recipe.toml"
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
    )
    tasks = task_curves(metrics)
    page = templates.get_template("report.html.j2").render(
        name=run.resolve().name,
        state="finished" if finished else f"not finished: as of step {metrics[-1]['step']:,}",
        figures=_headline_figures(metrics),
        pictures=_plot_data_uris(metrics),
        has_tasks=bool(tasks),
        tables=[
            _heldout_table(heldout_curves(metrics), finished),
            _task_table(tasks),
            ("Facts", (), [[*fact] for fact in (facts or {}).items()]),
        ],
        samples=samples,
        recipe=recipe.read_text("utf-8", errors="replace") if recipe.is_file() else "",
    )
    path = run / "report.html"
    atomic_write_text(path, page)
    return path


def _headline_figures(metrics: MetricRows) -> list[tuple[str, str]]:
    loss, heldout = loss_curve(metrics), heldout_curves(metrics)
    rates = [row["tokens_per_s"] for row in metrics if row.get("tokens_per_s") is not None]
    tokens, seconds = _latest_value(metrics, "tokens"), _latest_value(metrics, "seconds")
    smoothed = f"{smooth_curve(loss).values[-1]:.3f}" if len(loss) else "–"
    return [
        ("steps", f"{metrics[-1]['step']:,}"),
        ("tokens", "–" if tokens is None else _format_count(tokens)),
        ("training loss, smoothed, nats per token", smoothed),
        ("held-out bits per byte", f"{heldout[0].values[-1]:.3f}" if heldout else "–"),
        ("tokens per second, median", f"{median(rates):,.0f}" if rates else "–"),
        ("training time", "–" if seconds is None else format_duration(seconds)),
    ]


def _plot_data_uris(metrics: MetricRows) -> tuple[str, str] | None:
    """Return the light and the dark plot as data URIs; None without a working matplotlib."""
    if not is_installed("matplotlib"):
        return None
    with best_effort("picture in the page"):
        light, dark = (
            "data:image/png;base64," + base64.b64encode(png).decode("ascii")
            for png in (render_png_plot(metrics, ""), render_png_plot(metrics, "", DARK_PALETTE))
        )
        return light, dark
    return None


def _heldout_table(curves: list[Curve], is_final: bool) -> HtmlTable:
    columns = _first_and_last_step(curves[:1])
    if curves and is_final:
        columns[curves[0].steps[-1]] = "all held-out text"
    rows = []
    for curve in [*curves[1:], *curves[:1]]:
        values = dict(zip(curve.steps, curve.values, strict=True))
        cells = [f"{values[step]:.3f}" if step in values else "–" for step in columns]
        rows.append([curve.name, *cells])
    return "Held-out bits per byte", ["source", *columns.values()], rows


def _task_table(curves: list[TaskCurve]) -> HtmlTable:
    columns = _first_and_last_step(curves)
    rows = []
    for curve in curves:
        cells = {step: format_accuracy(curve, point) for point, step in enumerate(curve.steps)}
        rows.append([curve.name, *(cells.get(step, "–") for step in columns), curve.metric])
    headers = ["task", *columns.values(), "metric"]
    return "Accuracy on tasks, ± standard error", headers, rows


def _first_and_last_step(curves: Sequence[Curve]) -> dict[float, str]:
    """Return the columns of a table of curves, as step -> title."""
    steps = [step for curve in curves for step in curve.steps]
    ends = (min(steps), max(steps)) if steps else ()
    return {step: f"step {step:,.0f}" for step in ends}


def _latest_value(metrics: MetricRows, key: str) -> float | None:
    return next((row[key] for row in reversed(metrics) if row.get(key) is not None), None)


def _format_count(count: float) -> str:
    """Return a shortened count: 49152 -> 49.2 k, 13107200000 -> 13.1 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return f"{count:.0f}"
