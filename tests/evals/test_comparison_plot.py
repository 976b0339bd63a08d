"""The picture of a comparison: every panel, every model, and names that can be read."""

import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.image import imread
from tests.evals.test_comparison_table import comparison, model
from tests.reporting.conftest import without

from gnano.evals.comparison_plot import check_plot_path, draw_comparison, plot_comparison
from gnano.evals.eval_tasks import TASKS
from gnano.evals.reference_scores import REFERENCE_MODELS
from gnano.utils.plot_style import LIGHT_PALETTE

__all__ = ["without"]


def picture(found, tmp_path):
    path = tmp_path / "new" / "compared.png"
    plot_comparison(found, path)
    assert [path] == list(path.parent.iterdir())
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return (imread(io.BytesIO(content), format="png")[..., :3] * 255).round().astype(int)


def painted(pixels, color):
    """How many pixels are of this colour."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - rgb).max(axis=-1) <= 2).sum())


@pytest.mark.parametrize(("count", "down", "across"), [(1, 1, 1), (4, 2, 2), (5, 2, 3)])
def test_the_picture_has_a_panel_a_task_and_a_sensible_size(tmp_path, count, down, across):
    tasks = list(TASKS)[:count]
    scores = dict.fromkeys(tasks, 0.5)
    pixels = picture(comparison([model("a", **scores)], tasks, REFERENCE_MODELS[:5]), tmp_path)
    height, width = pixels.shape[:2]
    assert 800 * across <= width <= 1_000 * across and 600 * down <= height <= 900 * down
    assert painted(pixels, LIGHT_PALETTE.loss) > 200 * count


def test_every_model_is_drawn_in_its_colour_and_published_ones_in_grey(tmp_path):
    models = [model("a", piqa=0.5), model("_b $5", piqa=0.6)]
    two = picture(comparison(models, ["piqa"]), tmp_path)
    with_others = picture(comparison(models, ["piqa"], REFERENCE_MODELS), tmp_path)
    for color in (LIGHT_PALETTE.loss, LIGHT_PALETTE.sources[0]):
        assert painted(two, color) > 200
    assert painted(two, LIGHT_PALETTE.sources[1]) == 0
    assert painted(with_others, LIGHT_PALETTE.muted) > painted(two, LIGHT_PALETTE.muted) + 500
    named = [
        text.get_text()
        for text in draw_comparison(comparison(models, ["piqa"])).legends[0].get_texts()
    ]
    assert named == ["a", "_b $5", "guessing"]


def test_a_model_of_unknown_tokens_is_a_line_across(tmp_path):
    from dataclasses import replace

    known, unknown = model("a", piqa=0.5), replace(model("b", piqa=0.5), tokens=None)
    found = {}
    for one in (known, unknown):
        pixels = picture(comparison([one], ["piqa"], REFERENCE_MODELS), tmp_path)
        panel = pixels[200:]
        rgb = [int(LIGHT_PALETTE.loss[i : i + 2], 16) for i in (1, 3, 5)]
        found[one.name] = (np.abs(panel - rgb).max(axis=-1) <= 2).sum(axis=1).max()
    assert found["a"] < 40 and found["b"] > 500


def test_scores_of_the_other_accuracy_are_not_drawn():
    def points(*names):
        rows = tuple(row for row in REFERENCE_MODELS if row.name in names)
        axes = draw_comparison(comparison([model("a", arc_easy=0.5)], ["arc_easy"], rows)).axes[0]
        return sorted(text.get_text() for text in axes.texts if text.get_text())

    assert points("Pythia-160M", "Pythia-1B", "TinyLlama-1.1B") == ["Pythia-1B", "TinyLlama-1.1B"]


@pytest.mark.parametrize("task", TASKS)
def test_names_stay_in_their_panel_and_hide_no_other(task):
    figure = draw_comparison(comparison([model("a", **{task: 0.5})], [task], REFERENCE_MODELS))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert boxes
    for box in boxes:
        assert box.x0 > axes.bbox.x0 - 20 and box.x1 < axes.bbox.x1 + 20
    hidden = 0.0
    for one, other in combinations(boxes, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        hidden += max(width, 0) * max(height, 0)
    assert hidden < 0.2 * min(box.width * box.height for box in boxes)


def test_panels_have_one_scale_of_tokens():
    scores = {"hellaswag": 0.4, "boolq": 0.6}
    figure = draw_comparison(comparison([model("a", **scores)], list(scores), REFERENCE_MODELS))
    one, other = (axes.get_xlim() for axes in figure.axes)
    assert one == other and one[0] < 105e9 and one[1] > 11e12  # Pythia, SmolLM2


def test_the_same_results_give_the_same_bytes(tmp_path):
    found = comparison([model("a", piqa=0.5)], ["piqa"], REFERENCE_MODELS)
    for name in ("one.png", "two.png"):
        plot_comparison(found, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_without_matplotlib_it_is_told_and_nothing_is_written(tmp_path, without):
    found = comparison([model("a", piqa=0.5)], ["piqa"])
    check_plot_path(tmp_path / "a.png")
    without("matplotlib", "matplotlib.figure", "matplotlib.layout_engine")
    for refused in (check_plot_path, lambda path: plot_comparison(found, path)):
        with pytest.raises(ValueError, match=r"pip install 'auto-g-nano\[plot\]'"):
            refused(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
    check_plot_path(None)


def test_what_cannot_be_drawn_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"name a FILE\.png"):
        check_plot_path(tmp_path / "a.pdf")
    with pytest.raises(ValueError, match="no task to draw"):
        plot_comparison(comparison([model("a")]), tmp_path / "a.png")
