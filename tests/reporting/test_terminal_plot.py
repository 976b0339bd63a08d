import re

import pytest

from gnano.reporting.terminal_plot import HEIGHT, WIDTH, render_terminal_plot, round_ticks

BRAILLE = {chr(code) for code in range(0x2801, 0x2900)}


def test_plain_text_fits_and_has_no_escape_codes(rows):
    text = render_terminal_plot(rows(), color=False)
    assert "\x1b" not in text and "\r" not in text
    lines = text.split("\n")
    assert len(lines) == HEIGHT and max(map(len, lines)) <= WIDTH
    assert sum(character in BRAILLE for character in text) > 15
    assert "training loss: 3." in text and "held-out bits per byte: 1.1" in text


def test_the_size_does_not_depend_on_the_terminal(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    lines = render_terminal_plot(rows(), color=False).split("\n")
    assert len(lines) == HEIGHT and max(map(len, lines)) > WIDTH - 10


def test_color_only_adds_escape_codes(rows):
    plain, colored = (render_terminal_plot(rows(), color=color) for color in (False, True))
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert colored != stripped
    assert [line.rstrip() for line in stripped.split("\n")] == plain.split("\n")


def test_a_falling_loss_falls_in_the_plot(rows):
    lines = render_terminal_plot(rows(every=0), color=False).split("\n")
    points = [(r, c) for r, line in enumerate(lines) for c, x in enumerate(line) if x in BRAILLE]
    assert min(points)[1] < 10  # the highest point is on the left
    assert max(points, key=lambda point: point[1])[0] >= 10  # the last one near the bottom


def test_one_step_and_no_heldout_yet_is_one_visible_point(rows):
    text = render_terminal_plot(rows(steps=1, every=0, final=False), color=False)
    assert text.count("●") == 1 and "held-out" not in text


def test_long_runs_have_the_same_height(rows):
    many, few = (render_terminal_plot(rows(steps=n, every=n // 50)) for n in (50_000, 500))
    assert len(many.split("\n")) == len(few.split("\n"))


def test_missing_plotext_is_reported(rows, without):
    without("plotext")
    with pytest.raises(ValueError, match=r"pip install 'auto-g-nano\[plot\]'"):
        render_terminal_plot(rows())


@pytest.mark.parametrize("start, stop", [(0, 848), (3.1, 3.1004), (1e-5, 11.7), (0, 1.06)])
def test_ticks_are_few_round_and_inside(start, stop):
    points = round_ticks(start, stop, 5)
    assert 2 <= len(points) <= 6
    assert all(start - 1e-9 <= point <= stop + 1e-9 for point in points)


def test_a_run_without_a_finite_loss_is_reported(rows):
    with pytest.raises(ValueError, match="nothing to plot"):
        render_terminal_plot([{**row, "loss": None} for row in rows(every=0)])
