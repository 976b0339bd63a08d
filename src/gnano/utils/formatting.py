"""Numbers, tables, commands and templates as text for people."""

import shlex
from collections.abc import Container, Sequence
from pathlib import Path


def format_table(rows: Sequence[Sequence[str]], left: Container[int] = (0,)) -> list[str]:
    """Return one line per row; the `left` columns are left-aligned text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plural(count: int, noun: str) -> str:
    """Return "1 step" or "2,000 steps"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_gb(size: float, spec: str = ".2f") -> str:
    """Return a number of bytes as gigabytes: "1.25 GB"."""
    return f"{size / 1e9:{spec}} GB"


def format_si(number: float) -> str:
    """Return three figures and a prefix: 1_234_567 as "1.23 M"."""
    for prefix in ("", " k", " M", " G", " T", " P", " E", " Z"):
        if number < 1000:
            return f"{number:.3g}{prefix}"
        number /= 1000
    return f"{number:.3g} Y"


def format_duration(seconds: float) -> str:
    """Return one number in a suitable unit: 95 s, 6.8 min, 3.1 h, 6.9 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def format_clock(seconds: float) -> str:
    """Return 42 as "0:42" and 3725 as "1:02:05"."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_shell_command(*arguments: str | Path) -> str:
    """Join the words of a command, each quoted where a shell would split or expand it.

    A path that begins with a dash is written ./-path, so that it is not taken for an option.
    """
    words = (
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
        for word in arguments
    )
    return shlex.join(words)
