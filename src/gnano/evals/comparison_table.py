"""A comparison as text: models, published scores below a rule, and the differences.

                     parameters   tokens  bits/byte  HellaSwag     ARC-Easy
                                                     acc_norm      acc_norm
                                                     100 items     100 items
    mine                 4.36 M   1.23 M    1.7624*  0.270 ±.045   0.310 ±.046*
    guessing                                         0.250         0.250
    ───────────────────────────────────────────────────────────────────────────
    Pythia-160M [1]       162 M    300 B             0.302         0.432 acc

Tasks that do not fit the width follow in further tables with the same names.
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gnano.evals.comparison import Comparison, ReferenceModel, TaskColumn
from gnano.utils.formatting import format_table
from gnano.utils.templates import render_template

MAX_NAME_LENGTH = 34  # characters

# cells of a column: three of the heading, each model, guessing, each published row
Cells = list[str]
RIGHT_ALIGNED = ("parameters", "tokens")  # headings


def format_comparison(comparison: Comparison, width: int = 100) -> str:
    """Return the text for a terminal of `width` characters."""

    def wrap(text: str, indent: str = "") -> str:
        return textwrap.fill(
            text, width, initial_indent=indent, subsequent_indent=f"{indent}  ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip

    sources: dict[str, dict[str, list[str]]] = {}  # names of models by source, then note
    for row in comparison.published:
        sources.setdefault(row.source, {}).setdefault(row.note, []).append(row.name)
    text = render_template(
        Path(__file__).with_name("comparison.txt.j2"),
        wrap=wrap,
        comparison=comparison,
        tables=_format_tables(comparison, list(sources), width),
        metrics={
            _format_reference(column, row).partition(" ")[2]
            for column in comparison.columns
            for row in comparison.published
        },
        differences=_format_differences(comparison),
        sources=sources,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _format_tables(comparison: Comparison, sources: Sequence[str], width: int) -> list[str]:
    """Return one table, or several where the columns do not fit the width."""
    models, published = comparison.models, comparison.published
    names = ["", "", ""]
    for model in models:  # the end of a long name is more specific than its start
        name = model.name
        names.append(name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}")
    names += ["guessing", *(f"{one.name} [{sources.index(one.source) + 1}]" for one in published)]
    facts = []
    for field in RIGHT_ALIGNED:
        own, others = (
            [format_count(getattr(one, field)) for one in rows] for rows in (models, published)
        )
        facts.append([field, "", "", *own, "", *others])
    if comparison.texts:
        bits = list(map(comparison.bits_per_byte, models))
        cells = [f"{one:.4f}{_best_mark(one, bits, min(bits))}" for one in bits]
        facts.append(["bits/byte", "", "", *cells, "", *[""] * len(published)])

    def total_width(columns: Sequence[Cells]) -> int:
        return sum(max(map(len, cells)) + 2 for cells in columns) - 2

    tables = [[names, *facts]]
    for column in comparison.columns:
        scores = _score_column(column, comparison)
        if len(tables[-1]) > 1 and total_width([*tables[-1], scores]) > width:
            tables.append([names])
        tables[-1].append(scores)
    texts = []
    for columns in tables:
        rows = list(zip(*columns, strict=True))
        left = [number for number, cells in enumerate(columns) if cells[0] not in RIGHT_ALIGNED]
        lines = format_table(rows, left)
        guessing = 3 + len(models)
        shown = [line for line in lines[:3] if line] + lines[3:guessing]
        if any(rows[guessing][1:]):
            shown.append(lines[guessing])
        below = [  # published rows without a score in a further table are left out
            line
            for row, line in zip(rows[guessing + 1 :], lines[guessing + 1 :], strict=True)
            if columns is tables[0] or any(row[1:])
        ]
        if models and below:
            shown.append("─" * total_width(columns))
        texts.append("\n".join(shown + below))
    return texts


def format_count(number: int | None) -> str:
    """Format a count with three figures: 1_228_800 -> '1.23 M', None -> '?'."""
    if number is None:
        return "?"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is 1 M, not 1,000 k
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {letter}"
    return str(number)


def _score_column(column: TaskColumn, comparison: Comparison) -> Cells:
    accuracies = [column.accuracy_of(model) for model in comparison.models]
    values = [one.value for one in accuracies]
    cells = [
        column.title,
        column.metric + (f", {column.shots}-shot" if column.shots else ""),
        f"{column.items:,} items" if column.items else "",
    ]
    for one in accuracies:
        mark = _best_mark(one.value, values, max(values))
        cells.append(f"{one.value:.3f} {_format_stderr(one.stderr)}{mark}")
    cells.append("" if column.chance is None else f"{column.chance:.3f}")
    return cells + [_format_reference(column, row) for row in comparison.published]


def _format_stderr(stderr: float) -> str:
    return f"±{f'{stderr:.3f}'.removeprefix('0')}"


def _best_mark(value: float, values: Sequence[float], best: float) -> str:
    """Return "*" for the best value, unless all are equal."""
    return "*" if len(set(values)) > 1 and value == best else ""


def _format_reference(column: TaskColumn, reference: ReferenceModel) -> str:
    if (score := column.reference_score(reference)) is None:
        return ""
    value, metric = score
    return f"{value:.3f}" + ("" if metric == column.metric else f" {metric.removeprefix('acc_')}")


def _format_differences(comparison: Comparison) -> list[str]:
    """Return a line for each task: the difference between two models, and if it is significant."""
    rows = []
    for one in comparison.differences:
        better = comparison.models[one.value < 0].name
        verdict = f"more than two standard errors: {better} is better"
        value = f"{one.value:+.3f} {_format_stderr(one.stderr)}"
        rows.append(
            (f"  {one.title}", value, verdict if one.is_significant else "within the error")
        )
    return format_table(rows, left=range(3))
