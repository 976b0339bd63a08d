"""A run as one page: `report.html`, a single file to open, mail or keep.

    name and state
    headline figures
    curves                          (a picture for light and one for dark)
    held-out table · tasks · facts
    samples, the prompt marked
    the whole recipe, folded

Nothing is fetched from anywhere, and nothing from a file reaches the page unescaped: what a
model writes is text from outside.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from gnano.report.curves import (
    Curve,
    Rows,
    TaskCurve,
    accuracy,
    heldout_curves,
    loss_curve,
    smooth,
    task_curves,
)
from gnano.report.metrics import read_metrics
from gnano.report.plot import DARK, png_bytes
from gnano.report.style import CSS
from gnano.utils.atomic_io import write_text
from gnano.utils.best_effort import best_effort

Samples = Sequence[tuple[str, str, str]]  # title, prompt, continuation


def write_report(run: Path, facts: Mapping[str, str] | None = None, samples: Samples = ()) -> Path:
    """Write `run/report.html` from the run's files, finished or not, and return its path.

    `facts` become rows of a table (hardware, cost, …), `samples` are what the model wrote.
    FileNotFoundError or ValueError if the run has not logged a step yet.
    """
    metrics = read_metrics(run / "metrics.jsonl")
    recipe = run / "recipe.toml"
    name = run.resolve().name
    parts = [
        _head(name, metrics),
        _figures(metrics),
        _picture(metrics),
        '<div class="tables">',
        _heldout(heldout_curves(metrics), _finished(metrics)),
        _tasks(task_curves(metrics)),
        _facts(facts or {}),
        "</div>",
        _samples(samples),
        _recipe(recipe.read_text("utf-8", errors="replace")) if recipe.is_file() else "",
    ]
    page = PAGE.format(title=escape(name), css=CSS, body="\n".join(filter(None, parts)))
    path = run / "report.html"
    write_text(path, page)
    return path


PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · gnano</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _finished(metrics: Rows) -> bool:
    return bool(metrics[-1].get("final"))


def _head(name: str, metrics: Rows) -> str:
    state = "finished" if _finished(metrics) else f"not finished: as of step {_last(metrics):,}"
    return f"<header><h1>{escape(name)}</h1><p>{state}</p></header>"


def _figures(metrics: Rows) -> str:
    loss, heldout = loss_curve(metrics), heldout_curves(metrics)
    rates = [row["tokens_per_s"] for row in metrics if row.get("tokens_per_s") is not None]
    tokens, seconds = _latest(metrics, "tokens"), _latest(metrics, "seconds")
    figures = [
        ("steps", f"{_last(metrics):,}"),
        ("tokens", "–" if tokens is None else _compact(tokens)),
        (
            "training loss, smoothed, nats per token",
            f"{smooth(loss).values[-1]:.3f}" if len(loss) else "–",
        ),
        ("held-out bits per byte", f"{heldout[0].values[-1]:.3f}" if heldout else "–"),
        ("tokens per second, median", f"{median(rates):,.0f}" if rates else "–"),
        ("training time", "–" if seconds is None else _duration(seconds)),
    ]
    boxes = [f"<div><dd>{value}</dd><dt>{name}</dt></div>" for name, value in figures]
    return f'<dl class="figures">{"".join(boxes)}</dl>'


def _picture(metrics: Rows) -> str:
    """The curves as data URIs, or nothing where matplotlib is missing or fails."""
    if find_spec("matplotlib") is None:
        return ""
    shown = "Training loss and held-out bits per byte"
    if task_curves(metrics):
        shown = "Training loss, held-out bits per byte and accuracy on tasks"
    with best_effort("picture in the page"):
        light = _data_uri(png_bytes(metrics, ""))
        dark = _data_uri(png_bytes(metrics, "", DARK))
        return (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img alt="{shown} against steps" src="{light}"></picture>'
        )
    return ""


def _heldout(curves: list[Curve], whole: bool) -> str:
    if not curves:
        return ""
    total, *sources = curves
    columns = _ends(total.steps[0], total.steps[-1])
    if whole:
        columns[total.steps[-1]] = "all held-out text"
    rows = []
    for curve in [*sources, total]:
        measured = dict(zip(curve.steps, curve.values, strict=True))
        cells = [f"{measured[step]:.3f}" if step in measured else "–" for step in columns]
        kind = ' class="total"' if curve is total else ""
        rows.append(_tr(escape(curve.name), cells, kind))
    return (
        "<section><h2>Held-out bits per byte</h2>"
        f"{_table(['source', *columns.values()], rows)}</section>"
    )


def _tasks(curves: list[TaskCurve]) -> str:
    if not curves:
        return ""
    steps = [step for curve in curves for step in curve.steps]
    columns = _ends(min(steps), max(steps))
    rows = []
    for curve in curves:
        points = {step: point for point, step in enumerate(curve.steps)}
        cells = [accuracy(curve, points[step]) if step in points else "–" for step in columns]
        rows.append(_tr(escape(curve.name), [*cells, curve.measure]))
    return (
        "<section><h2>Accuracy on tasks, ± standard error</h2>"
        f"{_table(['task', *columns.values(), 'measure'], rows)}</section>"
    )


def _ends(first: float, last: float) -> dict[float, str]:
    """The columns of a table of curves: where they begin, and where they stand."""
    return {step: f"step {step:,.0f}" for step in (first, last)}


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th>{words}</th>" for words in heads)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = [_tr(escape(name), [escape(value)]) for name, value in facts.items()]
    if not rows:
        return ""
    return f"<section><h2>Facts</h2><table><tbody>{''.join(rows)}</tbody></table></section>"


def _tr(name: str, cells: Sequence[str], kind: str = "") -> str:
    tds = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{kind}><th scope="row">{name}</th>{tds}</tr>'


def _samples(samples: Samples) -> str:
    figures = [
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f"<p><mark>{escape(prompt)}</mark>{escape(continuation)}</p></figure>"
        for title, prompt, continuation in samples
    ]
    if not figures:
        return ""
    return (
        "<section><h2>Samples</h2>"
        '<p class="note"><mark>Marked</mark> is the prompt, the rest is what the model wrote.</p>'
        f"{''.join(figures)}</section>"
    )


def _recipe(text: str) -> str:
    return f"<details><summary>recipe.toml</summary><pre>{escape(text)}</pre></details>"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _last(metrics: Rows) -> int:
    return int(metrics[-1]["step"])


def _latest(metrics: Rows, key: str) -> float | None:
    return next((row[key] for row in reversed(metrics) if row.get(key) is not None), None)


def _compact(count: float) -> str:
    """49152 -> 49.2 k, 13107200000 -> 13.1 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return f"{count:.0f}"


def _duration(seconds: float) -> str:
    """One number in the unit that suits it: 95 s, 6.8 min, 3.1 h, 6.9 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
