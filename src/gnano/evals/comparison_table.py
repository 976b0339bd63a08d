"""A comparison as text: the models, a rule, published scores, and the differences.

                     parameters   tokens  bits/byte  HellaSwag     ARC-Easy
                                                     acc_norm      acc_norm
                                                     100 items     100 items
    mine                 4.36 M   1.23 M    1.7624*  0.270 ±.045   0.310 ±.046*
    guessing                                         0.250         0.250
    ───────────────────────────────────────────────────────────────────────────
    Pythia-160M [1]       162 M    300 B             0.302         0.432 acc

Tasks that the width has no room for follow below, with the same names.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from gnano.evals.comparison import Comparison, TaskColumn
from gnano.evals.reference_scores import ReferenceModel

MAX_NAME_LENGTH = 34  # characters of a name


class TableColumn(NamedTuple):
    """The texts of a column: of the heading (three), each model, guessing, each published row."""

    texts: list[str]
    align_right: bool = False  # numbers of one kind are aligned at their ends

    @property
    def width(self) -> int:
        return max(map(len, self.texts))


def format_comparison(comparison: Comparison, width: int = 100) -> str:
    """Return the text for a terminal of `width` characters."""
    sources = list(dict.fromkeys(row.source for row in comparison.published))
    parts = [
        *_format_tables(comparison, sources, width),
        _format_legend(comparison),
        _format_differences(comparison),
    ]
    parts.append("\n".join(_wrap(note, width, "") for note in comparison.notes))
    parts.append(_format_sources(comparison.published, sources, width))
    return "\n\n".join(part for part in parts if part)


def _format_tables(comparison: Comparison, sources: Sequence[str], width: int) -> list[str]:
    """Return one table where there is room, else several."""
    names = _name_column(comparison, sources)
    blocks = [[names, *_fact_columns(comparison)]]
    for column in comparison.columns:
        scores = _score_column(column, comparison)
        if len(blocks[-1]) > 1 and _total_width([*blocks[-1], scores]) > width:
            blocks.append([names])
        blocks[-1].append(scores)
    count = len(comparison.models)
    return ["\n".join(_format_lines(block, count, block is blocks[0])) for block in blocks]


def _total_width(columns: Sequence[TableColumn]) -> int:
    return sum(one.width + 2 for one in columns) - 2


def _format_lines(columns: Sequence[TableColumn], num_models: int, keep_empty: bool) -> list[str]:
    """Return the lines of a table; `every`: with the published rows that have no scores in it."""
    rows = list(zip(*(one.texts for one in columns), strict=True))
    guessing, published = rows[3 + num_models], rows[4 + num_models :]
    lines = [line for row in rows[:3] if (line := _format_line(columns, row))]
    lines += [_format_line(columns, row) for row in rows[3 : 3 + num_models]]
    if any(guessing[1:]):
        lines.append(_format_line(columns, guessing))
    published = [row for row in published if keep_empty or any(row[1:])]
    if num_models and published:
        lines.append("─" * _total_width(columns))
    return lines + [_format_line(columns, row) for row in published]


def _format_line(columns: Sequence[TableColumn], row: Sequence[str]) -> str:
    cells = (
        text.rjust(one.width) if one.align_right else text.ljust(one.width)
        for one, text in zip(columns, row, strict=True)
    )
    return "  ".join(cells).rstrip()


def _name_column(comparison: Comparison, sources: Sequence[str]) -> TableColumn:
    published = [f"{row.name} [{sources.index(row.source) + 1}]" for row in comparison.published]
    models = [_shorten(model.name) for model in comparison.models]
    return TableColumn(["", "", "", *models, "guessing", *published])


def _shorten(name: str) -> str:
    """Keep the end of a long name, which says more than its start."""
    return name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}"


def _fact_columns(comparison: Comparison) -> list[TableColumn]:
    """Return the columns of sizes, tokens and bits per byte."""
    models, rows = comparison.models, comparison.published
    sizes = (
        [format_count(one.parameters) for one in models],
        [format_count(one.parameters) for one in rows],
    )
    tokens = (
        [format_count(one.tokens) for one in models],
        [format_count(one.tokens) for one in rows],
    )
    found = [
        TableColumn(["parameters", "", "", *sizes[0], "", *sizes[1]], align_right=True),
        TableColumn(["tokens", "", "", *tokens[0], "", *tokens[1]], align_right=True),
    ]
    if comparison.texts:
        bits = list(map(comparison.bits_per_byte, models))
        texts = [f"{one:.4f}{_best_mark(one, bits, min(bits))}" for one in bits]
        found.append(TableColumn(["bits/byte", "", "", *texts, "", *[""] * len(rows)]))
    return found


def format_count(number: int | None) -> str:
    """Format three figures: 1_228_800 -> '1.23 M', None -> '?'."""
    if number is None:
        return "?"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is 1 M, not 1,000 k
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {letter}"
    return str(number)


def _score_column(column: TaskColumn, comparison: Comparison) -> TableColumn:
    found = [column.accuracy_of(model) for model in comparison.models]
    values = [one.value for one in found]
    return TableColumn(
        [
            column.title,
            column.metric + (f", {column.shots}-shot" if column.shots else ""),
            f"{column.items:,} items" if column.items else "",
            *(
                f"{one.value:.3f} {_format_stderr(one.stderr)}{_best_mark(one.value, values, max(values))}"
                for one in found
            ),
            "" if column.chance is None else f"{column.chance:.3f}",
            *(_format_reference(column, row) for row in comparison.published),
        ]
    )


def _format_stderr(stderr: float) -> str:
    return f"±{f'{stderr:.3f}'.removeprefix('0')}"


def _best_mark(value: float, values: Sequence[float], best: float) -> str:
    """Return the mark of the best of several; none of equals has it."""
    return "*" if len(set(values)) > 1 and value == best else ""


def _format_reference(column: TaskColumn, reference: ReferenceModel) -> str:
    if (found := column.reference_score(reference)) is None:
        return ""
    value, metric = found
    return f"{value:.3f}" + ("" if metric == column.metric else f" {metric.removeprefix('acc_')}")


def _format_legend(comparison: Comparison) -> str:
    signs = []
    if len(comparison.models) > 1:
        signs.append("* the best of its column")
    if comparison.models and comparison.columns:
        signs.append("± one standard error")
    lines = [" · ".join(signs)] if signs else []
    if comparison.texts:
        lines.append(f"bits/byte: of {', '.join(comparison.texts)}")
    rows = comparison.published
    shown = {
        _format_reference(column, row).partition(" ")[2]
        for column in comparison.columns
        for row in rows
    }
    for word, other in (("acc", "acc_norm"), ("norm", "acc")):
        if word in shown:
            lines.append(f"{word} beside a score: its source has no {other}; not to be compared")
    return "\n".join(lines)


def _format_differences(comparison: Comparison) -> str:
    """Return how much the first of two models is better than the second, by task."""
    found = comparison.differences
    if not found:
        return ""
    one, other = (model.name for model in comparison.models)
    width = max(len(difference.title) for difference in found)
    lines = [f"{one}, less {other}:"]
    for each in found:
        better = one if each.value > 0 else other
        verdict = f"more than two standard errors: {better} is better"
        lines.append(
            f"  {each.title:<{width}}  {each.value:+.3f} {_format_stderr(each.stderr)}"
            f"  {verdict if each.is_significant else 'within the error'}"
        )
    return "\n".join(lines)


def _format_sources(rows: Sequence[ReferenceModel], sources: Sequence[str], width: int) -> str:
    """Return the sources of the published scores and their notes."""
    lines = []
    for number, source in enumerate(sources, 1):
        lines.append(f"[{number}] {source}")
        notes: dict[str, list[str]] = {}
        for row in rows:
            if row.source == source:
                notes.setdefault(row.note, []).append(row.name)
        for note, names in notes.items():
            who = f"{', '.join(names)}: " if len(notes) > 1 else ""
            lines.append(_wrap(f"{who}{note}", width, "    "))
    return "\n".join(lines)


def _wrap(text: str, width: int, indent: str) -> str:
    further = f"{indent}  "
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=further,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
