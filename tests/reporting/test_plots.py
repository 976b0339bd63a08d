import io

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.image import imread

from gnano.reporting.plots import DARK_PALETTE, LIGHT_PALETTE, render_png_plot, save_png_plot


def pixels(png):
    return (imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(int)


def drawn(plot, color):
    """Return the number of pixels of a color."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(plot - rgb).max(axis=-1) <= 2).sum())


def test_the_plot_is_a_png_with_every_curve(rows, tmp_path):
    path = tmp_path / "new" / "curves.png"
    save_png_plot(rows(), path, "first try")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(path.parent.iterdir()) == [path]  # and nothing else is left behind
    plot = pixels(path.read_bytes())
    assert plot.shape[:2] == (720, 1760)
    left, right = plot[:, :740], plot[:, 860:]
    assert drawn(left, LIGHT_PALETTE.loss) > 1_000
    for color in (LIGHT_PALETTE.text, *LIGHT_PALETTE.sources[:3]):
        assert drawn(right, color) > 500
    assert drawn(right, LIGHT_PALETTE.sources[3]) == 0  # three sources, three colors


def test_an_old_plot_survives_a_failure(rows, tmp_path, without):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    without("matplotlib")
    with pytest.raises(ValueError, match=r"pip install 'auto-g-nano\[plot\]'"):
        save_png_plot(rows(), path, "")
    assert path.read_bytes() == b"old"


def test_plots_are_reproducible(rows):
    assert render_png_plot(rows(), "a") == render_png_plot(rows(), "a")


def test_the_dark_plot_is_dark(rows):
    assert pixels(render_png_plot(rows(), "a", DARK_PALETTE)).mean() < 60


def test_a_title_is_never_a_formula(rows):
    first, second = (render_png_plot(rows(steps=2), text) for text in ("$5 and $6_{", "$5 and $6"))
    assert first != second


def test_a_long_source_name_leaves_space_for_the_curves(rows):
    metrics = rows()
    for row in metrics:
        if "heldout" in row:
            row["heldout"]["sources"] = {"an-organisation/a-long-corpus-name" * 5: 1.0}
    assert drawn(pixels(render_png_plot(metrics, "")), LIGHT_PALETTE.loss) > 1_000


def test_a_run_of_one_step_shows_its_point(rows):
    plot = pixels(render_png_plot(rows(steps=1, every=0, final=False), "just started"))
    assert drawn(plot[100:, :860], LIGHT_PALETTE.loss) > 50


def test_a_run_of_nan_losses_has_a_plot(rows):
    metrics = rows(steps=3, every=0)
    for row in metrics:
        row["loss"] = float("nan")
    assert render_png_plot(metrics, "").startswith(b"\x89PNG")


def test_plotting_leaves_no_figure_in_pyplot(rows):
    before = pyplot.get_fignums()
    render_png_plot(rows(), "")
    assert pyplot.get_fignums() == before


def test_tasks_have_a_panel_below(rows_with_tasks):
    plot = pixels(render_png_plot(rows_with_tasks(), ""))
    assert plot.shape[:2] == (1200, 1760)
    above, below = plot[:660], plot[660:]
    assert drawn(above, LIGHT_PALETTE.loss) > 1_000 and drawn(above, LIGHT_PALETTE.sources[2]) > 500
    for color in LIGHT_PALETTE.sources[:2]:
        assert drawn(below, color) > 500
    assert drawn(below, LIGHT_PALETTE.sources[2]) == 0  # two tasks, two colors


def test_the_standard_error_is_a_band(rows_with_tasks):
    def count_colored(error):
        metrics = rows_with_tasks(names=("hellaswag",))
        for row in metrics:
            for found in row.get("tasks", {}).values():
                found["error"] = error
        below = pixels(render_png_plot(metrics, ""))[660:, :1300]
        return int((below.max(axis=-1) - below.min(axis=-1) > 8).sum())  # all but grey

    assert count_colored("unknown") + 5_000 < count_colored(0.01)


@pytest.mark.parametrize("steps, tasks_every", [(1, 1), (200, 1_000)])
def test_tasks_evaluated_once_are_points(rows_with_tasks, steps, tasks_every):
    metrics = rows_with_tasks(steps=steps, tasks_every=tasks_every)
    below = pixels(render_png_plot(metrics, ""))[660:, :1390]
    assert all(drawn(below, color) > 40 for color in LIGHT_PALETTE.sources[:2])


def test_more_tasks_than_colors_are_drawn(rows_with_tasks):
    names = tuple(f"task-{n}" * (1 + 9 * (n == 3)) for n in range(15))
    plot = pixels(render_png_plot(rows_with_tasks(names=names), ""))
    assert drawn(plot, LIGHT_PALETTE.loss) > 1_000
