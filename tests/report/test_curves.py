import math

import numpy as np

from gnano.report.curves import Curve, heldout_curves, loss_curve, smooth


def test_smoothing_leaves_a_straight_line_straight_and_does_not_lag():
    steps = np.arange(1.0, 401.0)
    falling = Curve("loss", steps, 10.0 - 0.01 * steps)
    centred = smooth(falling).values[:-10]  # at the end half of the window has not happened yet
    np.testing.assert_allclose(centred, falling.values[:-10])


def test_smoothing_takes_most_of_the_noise_away():
    noise = np.random.default_rng(1).normal(size=800)
    assert smooth(Curve("loss", np.arange(800.0), noise)).values.std() < 0.35


def test_a_loss_that_blew_up_is_no_point_of_the_curve(rows):
    metrics = rows(steps=5)
    metrics[2]["loss"], metrics[3]["loss"] = math.nan, math.inf
    assert loss_curve(metrics).steps.tolist() == [1, 2, 5]


def test_a_source_that_came_later_has_only_its_own_points(rows):
    metrics = rows(steps=100, every=25)
    metrics[-1]["heldout"]["sources"]["maths"] = 1.2
    total, *sources = heldout_curves(metrics)
    assert total.name == "total" and total.steps.tolist() == [25, 50, 75, 100]
    assert {c.name: len(c) for c in sources} == {"code": 4, "maths": 1, "prose": 4, "synthetic": 4}


def test_without_a_measurement_there_is_no_heldout_curve(rows):
    assert heldout_curves(rows(every=0)) == []
