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

from gnano.evals.comparing import Column, Comparison
from gnano.evals.published import Published

LONGEST = 34  # characters of a name


class TableColumn(NamedTuple):
    """The texts of a column: of the heading (three), each model, guessing, each published row."""

    texts: list[str]
    right: bool = False  # numbers of one kind are aligned at their ends

    @property
    def width(self) -> int:
        return max(map(len, self.texts))


def comparison_text(comparison: Comparison, width: int = 100) -> str:
    """Return the text for a terminal of `width` characters."""
    sources = list(dict.fromkeys(row.source for row in comparison.published))
    parts = [*_tables(comparison, sources, width), _legend(comparison), _differences(comparison)]
    parts.append("\n".join(_wrapped(note, width, "") for note in comparison.notes))
    parts.append(_sources(comparison.published, sources, width))
    return "\n\n".join(part for part in parts if part)


def _tables(comparison: Comparison, sources: Sequence[str], width: int) -> list[str]:
    """Return one table where there is room, else several."""
    names = _names(comparison, sources)
    blocks = [[names, *_facts(comparison)]]
    for column in comparison.columns:
        scores = _scores(column, comparison)
        if len(blocks[-1]) > 1 and _width([*blocks[-1], scores]) > width:
            blocks.append([names])
        blocks[-1].append(scores)
    count = len(comparison.models)
    return ["\n".join(_lines(block, count, block is blocks[0])) for block in blocks]


def _width(columns: Sequence[TableColumn]) -> int:
    return sum(one.width + 2 for one in columns) - 2


def _lines(block: Sequence[TableColumn], models: int, every: bool) -> list[str]:
    """Return the lines of a table; `every`: with the published rows that have no scores in it."""
    rows = list(zip(*(one.texts for one in block), strict=True))
    guessing, published = rows[3 + models], rows[4 + models :]
    lines = [line for row in rows[:3] if (line := _line(block, row))]
    lines += [_line(block, row) for row in rows[3 : 3 + models]]
    if any(guessing[1:]):
        lines.append(_line(block, guessing))
    published = [row for row in published if every or any(row[1:])]
    if models and published:
        lines.append("─" * _width(block))
    return lines + [_line(block, row) for row in published]


def _line(block: Sequence[TableColumn], row: Sequence[str]) -> str:
    cells = (
        text.rjust(one.width) if one.right else text.ljust(one.width)
        for one, text in zip(block, row, strict=True)
    )
    return "  ".join(cells).rstrip()


def _names(comparison: Comparison, sources: Sequence[str]) -> TableColumn:
    published = [f"{row.name} [{sources.index(row.source) + 1}]" for row in comparison.published]
    models = [_shorten(model.name) for model in comparison.models]
    return TableColumn(["", "", "", *models, "guessing", *published])


def _shorten(name: str) -> str:
    """Keep the end of a long name, which says more than its start."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _facts(comparison: Comparison) -> list[TableColumn]:
    """Return the columns of sizes, tokens and bits per byte."""
    models, rows = comparison.models, comparison.published
    sizes = [counted(one.parameters) for one in models], [counted(one.parameters) for one in rows]
    tokens = [counted(one.tokens) for one in models], [counted(one.tokens) for one in rows]
    found = [
        TableColumn(["parameters", "", "", *sizes[0], "", *sizes[1]], right=True),
        TableColumn(["tokens", "", "", *tokens[0], "", *tokens[1]], right=True),
    ]
    if comparison.texts:
        bits = list(map(comparison.bits, models))
        texts = [f"{one:.4f}{_mark(one, bits, min(bits))}" for one in bits]
        found.append(TableColumn(["bits/byte", "", "", *texts, "", *[""] * len(rows)]))
    return found


def counted(number: int | None) -> str:
    """Format three figures: 1_228_800 -> '1.23 M', None -> '?'."""
    if number is None:
        return "?"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is 1 M, not 1,000 k
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {letter}"
    return str(number)


def _scores(column: Column, comparison: Comparison) -> TableColumn:
    found = [column.of(model) for model in comparison.models]
    values = [one.value for one in found]
    return TableColumn(
        [
            column.title,
            column.metric + (f", {column.shots}-shot" if column.shots else ""),
            f"{column.items:,} items" if column.items else "",
            *(
                f"{one.value:.3f} {_error(one.error)}{_mark(one.value, values, max(values))}"
                for one in found
            ),
            "" if column.chance is None else f"{column.chance:.3f}",
            *(_cell(column, row) for row in comparison.published),
        ]
    )


def _error(error: float) -> str:
    return f"±{f'{error:.3f}'.removeprefix('0')}"


def _mark(value: float, values: Sequence[float], best: float) -> str:
    """Return the mark of the best of several; none of equals has it."""
    return "*" if len(set(values)) > 1 and value == best else ""


def _cell(column: Column, row: Published) -> str:
    if (found := column.published(row)) is None:
        return ""
    value, metric = found
    return f"{value:.3f}" + ("" if metric == column.metric else f" {metric.removeprefix('acc_')}")


def _legend(comparison: Comparison) -> str:
    signs = []
    if len(comparison.models) > 1:
        signs.append("* the best of its column")
    if comparison.models and comparison.columns:
        signs.append("± one standard error")
    lines = [" · ".join(signs)] if signs else []
    if comparison.texts:
        lines.append(f"bits/byte: of {', '.join(comparison.texts)}")
    rows = comparison.published
    shown = {_cell(column, row).partition(" ")[2] for column in comparison.columns for row in rows}
    for word, other in (("acc", "acc_norm"), ("norm", "acc")):
        if word in shown:
            lines.append(f"{word} beside a score: its source has no {other}; not to be compared")
    return "\n".join(lines)


def _differences(comparison: Comparison) -> str:
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
            f"  {each.title:<{width}}  {each.value:+.3f} {_error(each.error)}"
            f"  {verdict if each.clear else 'within the error'}"
        )
    return "\n".join(lines)


def _sources(rows: Sequence[Published], sources: Sequence[str], width: int) -> str:
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
            lines.append(_wrapped(f"{who}{note}", width, "    "))
    return "\n".join(lines)


def _wrapped(text: str, width: int, indent: str) -> str:
    further = f"{indent}  "
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=further,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
