"""A comparison as text: the models, a rule, what others published, and what it comes to.

                     parameters   tokens  bits/byte  HellaSwag     ARC-Easy
                                                     acc_norm      acc_norm
                                                     100 items     100 items
    mine                 4.36 M   1.23 M    1.7624*  0.270 ±.045   0.310 ±.046*
    guessing                                         0.250         0.250
    ───────────────────────────────────────────────────────────────────────────
    Pythia-160M [1]       162 M    300 B             0.302         0.432 acc

Tasks that the width has no room for follow below, beside the same names.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from gnano.evals.comparing import Column, Comparison
from gnano.evals.published import Published

LONGEST = 34  # characters of a name


@dataclass(frozen=True)
class Cells:
    """A column of the table, ready to be set."""

    heading: tuple[str, str, str]
    models: Sequence[str]
    guessing: str
    published: Sequence[str]
    right: bool = False  # numbers of one kind end below one another

    @property
    def width(self) -> int:
        return max(map(len, (*self.heading, *self.models, self.guessing, *self.published)))

    def set(self, text: str) -> str:
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def comparison_text(comparison: Comparison, width: int = 100) -> str:
    """For a terminal of so many characters."""
    sources = list(dict.fromkeys(row.source for row in comparison.published))
    parts = [*_tables(comparison, sources, width), _legend(comparison), _differences(comparison)]
    parts.append("\n".join(_wrapped(note, width, "") for note in comparison.notes))
    parts.append(_sources(comparison.published, sources, width))
    return "\n\n".join(part for part in parts if part)


def _tables(comparison: Comparison, sources: Sequence[str], width: int) -> list[str]:
    """One where there is room, else several."""
    names = _names(comparison, sources)
    tasks = [_task(column, comparison) for column in comparison.columns]
    blocks = [[names, *_facts(comparison)]]
    for task in tasks:
        if len(blocks[-1]) > 1 and _width([*blocks[-1], task]) > width:
            blocks.append([names])
        blocks[-1].append(task)
    return ["\n".join(_lines(block, every=block is blocks[0])) for block in blocks]


def _width(cells: Sequence[Cells]) -> int:
    return sum(one.width + 2 for one in cells) - 2


def _lines(block: Sequence[Cells], every: bool) -> list[str]:
    """`every`: the published rows too that have nothing to say of the tasks of this block."""

    def line(texts: Sequence[str]) -> str:
        return "  ".join(one.set(text) for one, text in zip(block, texts, strict=True)).rstrip()

    lines = [line([one.heading[at] for one in block]) for at in range(3)]
    lines = [text for text in lines if text]
    count = len(block[0].models)
    lines += [line([one.models[at] for one in block]) for at in range(count)]
    if any(one.guessing for one in block[1:]):
        lines.append(line([one.guessing for one in block]))
    rows = [[one.published[at] for one in block] for at in range(len(block[0].published))]
    rows = [row for row in rows if every or any(row[1:])]
    if count and rows:
        lines.append("─" * _width(block))
    return lines + list(map(line, rows))


def _names(comparison: Comparison, sources: Sequence[str]) -> Cells:
    published = [f"{row.name} [{sources.index(row.source) + 1}]" for row in comparison.published]
    models = [_short(model.name) for model in comparison.models]
    return Cells(("", "", ""), models, "guessing", published)


def _short(name: str) -> str:
    """The end of a long name says more than its start."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _facts(comparison: Comparison) -> list[Cells]:
    """Of the models as they are: sizes, tokens, bits per byte."""
    models, rows = comparison.models, comparison.published
    found = [
        Cells(
            ("parameters", "", ""),
            [counted(model.parameters) for model in models],
            "",
            [counted(row.parameters) for row in rows],
            right=True,
        ),
        Cells(
            ("tokens", "", ""),
            [counted(model.tokens) for model in models],
            "",
            [counted(row.tokens) for row in rows],
            right=True,
        ),
    ]
    if comparison.texts:
        bits = list(map(comparison.bits, models))
        told = [f"{one:.4f}{_mark(one, bits, min(bits))}" for one in bits]
        found.append(Cells(("bits/byte", "", ""), told, "", [""] * len(rows)))
    return found


def counted(number: int | None) -> str:
    """1_228_800 -> '1.23 M'; of what nobody has told '?'."""
    if number is None:
        return "?"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is 1 M, not 1,000 k
            return f"{_three(number / size)} {letter}"
    return str(number)


def _three(value: float) -> str:
    """Three figures of a number from 1 to 1,000."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _task(column: Column, comparison: Comparison) -> Cells:
    found = [column.of(model) for model in comparison.models]
    best = max((one.value for one in found), default=0.0)
    values = [one.value for one in found]
    models = [
        f"{one.value:.3f} ±{f'{one.error:.3f}'.removeprefix('0')}{_mark(one.value, values, best)}"
        for one in found
    ]
    return Cells(
        (
            column.title,
            column.metric + (f", {column.shots}-shot" if column.shots else ""),
            f"{column.items:,} items" if column.items else "",
        ),
        models,
        "" if column.chance is None else f"{column.chance:.3f}",
        [_cell(column, row) for row in comparison.published],
    )


def _mark(value: float, values: Sequence[float], best: float) -> str:
    """The best of several; of equal ones none is."""
    return "*" if len(set(values)) > 1 and value == best else ""


def _cell(column: Column, row: Published) -> str:
    found = column.published(row)
    if found is None:
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
    told = {_cell(column, row).partition(" ")[2] for column in comparison.columns for row in rows}
    for word, other in (("acc", "acc_norm"), ("norm", "acc")):
        if word in told:
            lines.append(f"{word} beside a score: its source has no {other}; not to be compared")
    return "\n".join(lines)


def _differences(comparison: Comparison) -> str:
    """Is the first of two better than the second?"""
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
            f"  {each.title:<{width}}  {each.value:+.3f} ±{f'{each.error:.3f}'.removeprefix('0')}"
            f"  {verdict if each.clear else 'within the error'}"
        )
    return "\n".join(lines)


def _sources(rows: Sequence[Published], sources: Sequence[str], width: int) -> str:
    """Where the scores were read, and by what they were measured."""
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
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
