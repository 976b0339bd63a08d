import re

import pytest

from gnano.reporting.terminal_plot import render_terminal_plot, round_ticks

BRAILLE = {chr(code) for code in range(0x2801, 0x2900)}


@pytest.mark.parametrize("width, height", [(80, 20), (120, 30), (60, 12), (40, 20), (33, 17)])
def test_plain_text_fits_and_has_no_escape_codes(rows, width, height):
    text = render_terminal_plot(rows(), width, height, color=False)
    assert "\x1b" not in text and "\r" not in text
    lines = text.split("\n")
    assert len(lines) == height and max(map(len, lines)) <= width
    assert sum(character in BRAILLE for character in text) > 15
    assert "training loss: 3." in text and "held-out bits per byte: 1.1" in text


def test_the_given_width_overrides_the_terminal(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    lines = render_terminal_plot(rows(), 100, 24, color=False).split("\n")
    assert len(lines) == 24 and max(map(len, lines)) > 80


def test_color_only_adds_escape_codes(rows):
    plain, colored = (render_terminal_plot(rows(), color=color) for color in (False, True))
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert colored != stripped
    assert [line.rstrip() for line in stripped.split("\n")] == plain.split("\n")


def test_a_falling_loss_falls_in_the_plot(rows):
    lines = render_terminal_plot(rows(every=0), 60, 16, color=False).split("\n")
    points = [(r, c) for r, line in enumerate(lines) for c, x in enumerate(line) if x in BRAILLE]
    assert min(points)[1] < 10  # the highest point is on the left
    assert max(points, key=lambda point: point[1])[0] >= 10  # the last one near the bottom


def test_one_step_and_no_heldout_yet_is_one_visible_point(rows):
    text = render_terminal_plot(rows(steps=1, every=0, final=False), color=False)
    assert text.count("●") == 1 and "held-out" not in text


def test_long_runs_have_the_same_height(rows):
    many, few = (render_terminal_plot(rows(steps=n, every=n // 50), 60, 16) for n in (50_000, 500))
    assert len(many.split("\n")) == len(few.split("\n"))


def test_a_plot_that_is_too_small_is_refused(rows):
    with pytest.raises(ValueError, match="at least 30 × 16"):
        render_terminal_plot(rows(), 40, 9)


def test_missing_plotext_is_reported(rows, without):
    without("plotext")
    with pytest.raises(ValueError, match=r"pip install 'auto-g-nano\[plot\]'"):
        render_terminal_plot(rows())


@pytest.mark.parametrize("start, stop", [(0, 848), (3.1, 3.1004), (1e-5, 11.7), (0, 1.06)])
def test_ticks_are_few_round_and_inside(start, stop):
    points = round_ticks(start, stop, 5)
    assert 2 <= len(points) <= 6
    assert all(start - 1e-9 <= point <= stop + 1e-9 for point in points)


def test_tasks_have_a_third_panel_if_it_fits(rows_with_tasks, rows):
    text = render_terminal_plot(rows_with_tasks(), 120, 20, color=False)
    assert "hellaswag 0.45, lambada 0.30" in text
    lines = text.split("\n")
    assert len(lines) == 20 and max(map(len, lines)) <= 120
    assert any(character in BRAILLE for line in lines for character in line[85:])
    for width, height in ((89, 20), (40, 30)):
        narrow = render_terminal_plot(rows_with_tasks(), width, height)
        assert narrow == render_terminal_plot(rows(), width, height)


def test_many_tasks_show_their_range(rows_with_tasks):
    metrics = rows_with_tasks(names=tuple(f"task-{n}" for n in range(8)))
    text = render_terminal_plot(metrics, 100, 20, color=False)
    assert "8 tasks: 0.30 to 0.45" in text
