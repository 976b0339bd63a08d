"""The plot of a comparison has every panel and every model, and its labels are readable."""

import io
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.image import imread
from tests.evals.test_comparison_table import comparison, model

from gnano.evals.comparison import REFERENCE_MODELS
from gnano.evals.eval_tasks import TASKS
from gnano.reporting.comparison_plot import check_plot_path, draw_comparison, plot_comparison
from gnano.reporting.plots import LIGHT_PALETTE


def plot_pixels(found, tmp_path):
    path = tmp_path / "new" / "compared.png"
    plot_comparison(found, path)
    assert [path] == list(path.parent.iterdir())
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return (imread(io.BytesIO(content), format="png")[..., :3] * 255).round().astype(int)


def has_color(pixels, color):
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(pixels - rgb).max(axis=-1) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("count", "down", "across"), [(1, 1, 1), (5, 2, 3)])
def test_there_is_a_panel_per_task(tmp_path, count, down, across):
    tasks = list(TASKS)[:count]
    scores = dict.fromkeys(tasks, 0.5)
    pixels = plot_pixels(comparison([model("a", **scores)], tasks, REFERENCE_MODELS[:5]), tmp_path)
    height, width = pixels.shape[:2]
    assert 800 * across <= width <= 1_000 * across and 600 * down <= height <= 900 * down
    assert has_color(pixels, LIGHT_PALETTE.loss).sum() > 200 * count


@pytest.mark.slow
def test_every_model_has_its_color_and_published_ones_are_gray(tmp_path):
    models = [model("a", piqa=0.5), model("_b $5", piqa=0.6)]
    two = plot_pixels(comparison(models, ["piqa"]), tmp_path)
    with_others = plot_pixels(comparison(models, ["piqa"], REFERENCE_MODELS), tmp_path)
    for color in (LIGHT_PALETTE.loss, LIGHT_PALETTE.sources[0]):
        assert has_color(two, color).sum() > 200
    assert has_color(two, LIGHT_PALETTE.sources[1]).sum() == 0
    muted = LIGHT_PALETTE.muted
    assert has_color(with_others, muted).sum() > has_color(two, muted).sum() + 500
    legend = draw_comparison(comparison(models, ["piqa"])).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["a", "_b $5", "guessing"]


@pytest.mark.slow
def test_model_with_unknown_tokens_is_a_horizontal_line(tmp_path):
    known, unknown = model("a", piqa=0.5), replace(model("b", piqa=0.5), tokens=None)
    longest = {}
    for one in (known, unknown):
        pixels = plot_pixels(comparison([one], ["piqa"], REFERENCE_MODELS[:3]), tmp_path)
        longest[one.name] = has_color(pixels[200:], LIGHT_PALETTE.loss).sum(axis=1).max()
    assert longest["a"] < 40 and longest["b"] > 500


def test_scores_of_the_other_metric_are_not_drawn():
    names = ("Pythia-160M", "Pythia-1B", "TinyLlama-1.1B")
    rows = tuple(row for row in REFERENCE_MODELS if row.name in names)
    axes = draw_comparison(comparison([model("a", arc_easy=0.5)], ["arc_easy"], rows)).axes[0]
    drawn = sorted(text.get_text() for text in axes.texts if text.get_text())
    assert drawn == ["Pythia-1B", "TinyLlama-1.1B"]


@pytest.mark.parametrize("task", ["hellaswag", "lambada"])
def test_labels_stay_in_their_panel_and_do_not_overlap(task):
    figure = draw_comparison(comparison([model("a", **{task: 0.5})], [task], REFERENCE_MODELS))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert boxes
    for box in boxes:
        assert box.x0 > axes.bbox.x0 - 20 and box.x1 < axes.bbox.x1 + 20
    overlap = 0.0
    for one, other in combinations(boxes, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        overlap += max(width, 0) * max(height, 0)
    assert overlap < 0.2 * min(box.width * box.height for box in boxes)


@pytest.mark.slow
def test_panels_have_the_same_scale_of_tokens():
    scores = {"hellaswag": 0.4, "boolq": 0.6}
    figure = draw_comparison(comparison([model("a", **scores)], list(scores), REFERENCE_MODELS))
    one, other = (axes.get_xlim() for axes in figure.axes)
    assert one == other and one[0] < 105e9 and one[1] > 11e12  # Pythia, SmolLM2


@pytest.mark.slow
def test_same_results_give_the_same_bytes(tmp_path):
    found = comparison([model("a", piqa=0.5)], ["piqa"], REFERENCE_MODELS[:5])
    for name in ("one.png", "two.png"):
        plot_comparison(found, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_missing_matplotlib_is_an_error_and_nothing_is_written(tmp_path, monkeypatch):
    found = comparison([model("a", piqa=0.5)], ["piqa"])
    check_plot_path(tmp_path / "a.png")
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.layout_engine"):
        monkeypatch.setitem(sys.modules, name, None)
    for check in (check_plot_path, lambda path: plot_comparison(found, path)):
        with pytest.raises(ValueError, match=r"pip install 'auto-g-nano\[plot\]'"):
            check(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_wrong_suffix_and_missing_tasks_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"name a FILE\.png"):
        check_plot_path(tmp_path / "a.pdf")
    with pytest.raises(ValueError, match="no task to draw"):
        plot_comparison(comparison([model("a")]), tmp_path / "a.png")
