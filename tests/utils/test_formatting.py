"""Tables, counts, sizes, durations, and the check for optional packages."""

import pytest

from gnano.utils.formatting import format_duration, format_gb, format_table, plural
from gnano.utils.platform_support import is_installed, require


def test_numbers_are_right_aligned_and_text_is_left_aligned() -> None:
    rows = [("run", "loss", "note"), ("demo", "3.2", ""), ("a", "12.25", "best")]
    assert format_table(rows, left=(0, 2)) == [
        "run    loss  note",
        "demo    3.2",
        "a     12.25  best",
    ]


def test_counts_sizes_and_durations_have_a_suitable_unit() -> None:
    assert [plural(n, "step") for n in (0, 1, 2_000)] == ["0 steps", "1 step", "2,000 steps"]
    assert (format_gb(1.25e9), format_gb(1_000, ".3g")) == ("1.25 GB", "1e-06 GB")
    spans = [95, 119, 408, 11_160, 596_160]
    assert [*map(format_duration, spans)] == ["95 s", "119 s", "6.8 min", "3.1 h", "6.9 days"]


def test_a_missing_package_is_named_with_its_extra() -> None:
    assert is_installed("torch") and not is_installed("no_such_package")
    require("torch", "plot", "Plots need torch")
    with pytest.raises(ValueError, match=r"Plots need x: pip install 'auto-g-nano\[plot\]'\.$"):
        require("no_such_package", "plot", "Plots need x")
