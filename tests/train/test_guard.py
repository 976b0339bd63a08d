"""One bad step is passed over; a run that has gone wrong for good ends with a sentence."""

import pytest

from gnano.train.guard import Guard, GuardConfig

PATIENCE = GuardConfig().patience


def rows(pattern: str) -> list[dict[str, object]]:
    return [{"step": n, "skipped": mark == "x"} for n, mark in enumerate(pattern, 1)]


def test_skipped_steps_that_are_not_in_a_row_never_end_a_run() -> None:
    guard = Guard(GuardConfig(), peak=1e-3)
    for row in rows(("x" * (PATIENCE - 1) + ".") * 5):
        guard(row)
    assert guard.skipped == 0


def test_too_many_in_a_row_name_the_first_and_what_to_change() -> None:
    guard = Guard(GuardConfig(), peak=1e-3)
    with pytest.raises(ValueError, match=r"in step 4 and .*lower train\.schedule\.peak.*0\.001"):
        for row in rows("..." + "x" * PATIENCE):
            guard(row)
