import io

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.image import imread

from gnano.report import png_plot
from gnano.report.plot import DARK, LIGHT, png_bytes


def pixels(png):
    return (imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(int)


def drawn(picture, color):
    """How many pixels carry this colour: a curve's own, not the paper's."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - rgb).max(axis=-1) <= 2).sum())


def test_the_picture_is_a_png_with_every_curve_drawn(rows, tmp_path):
    path = tmp_path / "new" / "curves.png"
    png_plot(rows(), path, "first try")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(path.parent.iterdir()) == [path]  # and nothing else is left behind
    picture = pixels(path.read_bytes())
    assert picture.shape[:2] == (720, 1760)
    left, right = picture[:, :740], picture[:, 860:]
    assert drawn(left, LIGHT.loss) > 1_000
    for color in (LIGHT.ink, *LIGHT.sources[:3]):
        assert drawn(right, color) > 500
    assert drawn(right, LIGHT.sources[3]) == 0  # three sources, three colours


def test_an_old_picture_survives_a_failure(rows, tmp_path, without):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    without("matplotlib")
    with pytest.raises(ValueError, match=r"pip install 'auto-g-nano\[plot\]'"):
        png_plot(rows(), path, "")
    assert path.read_bytes() == b"old"


def test_the_same_run_gives_the_same_picture(rows):
    assert png_bytes(rows(), "a") == png_bytes(rows(), "a")


def test_dark_paper_is_dark(rows):
    assert pixels(png_bytes(rows(), "a", DARK)).mean() < 60


def test_a_title_is_text_never_a_formula(rows):
    assert png_bytes(rows(steps=2), "$5 and $6_{") != png_bytes(rows(steps=2), "$5 and $6")


def test_a_long_source_name_does_not_squeeze_the_curves(rows):
    metrics = rows()
    for row in metrics:
        if "heldout" in row:
            row["heldout"]["sources"] = {"an-organisation/a-long-corpus-name" * 5: 1.0}
    assert drawn(pixels(png_bytes(metrics, "")), LIGHT.loss) > 1_000


def test_a_run_of_one_step_shows_its_point(rows):
    picture = pixels(png_bytes(rows(steps=1, every=0, final=False), "just started"))
    assert drawn(picture[100:, :860], LIGHT.loss) > 50


def test_a_run_that_blew_up_at_once_still_has_a_picture(rows):
    metrics = rows(steps=3, every=0)
    for row in metrics:
        row["loss"] = float("nan")
    assert png_bytes(metrics, "").startswith(b"\x89PNG")


def test_drawing_leaves_no_figure_behind_in_pyplot(rows):
    before = pyplot.get_fignums()
    png_bytes(rows(), "")
    assert pyplot.get_fignums() == before
