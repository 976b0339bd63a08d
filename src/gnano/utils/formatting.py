"""Numbers and tables as text for people: aligned columns, counted nouns, sizes, durations."""

from collections.abc import Collection, Sequence


def format_table(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Return one line per row with aligned columns; the `left` ones hold text, others numbers."""
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


def format_duration(seconds: float) -> str:
    """Return one number in the unit that suits it: 95 s, 6.8 min, 3.1 h, 6.9 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
