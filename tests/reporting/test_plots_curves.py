import math

import numpy as np
import pytest

from gnano.reporting.plots import Curve, read_curves, smooth_curve


def test_smoothing_leaves_a_straight_line_straight_and_does_not_lag():
    steps = np.arange(1.0, 401.0)
    falling = Curve("loss", steps, 10.0 - 0.01 * steps)
    centered = smooth_curve(falling).values[:-10]  # at the end half of the window is missing
    np.testing.assert_allclose(centered, falling.values[:-10])


def test_smoothing_takes_most_of_the_noise_away():
    noise = np.random.default_rng(1).normal(size=800)
    assert smooth_curve(Curve("loss", np.arange(800.0), noise)).values.std() < 0.35


def test_non_finite_losses_are_not_in_the_curve(rows):
    metrics = rows(steps=5)
    metrics[2]["loss"], metrics[3]["loss"] = math.nan, math.inf
    assert read_curves(metrics).loss.steps.tolist() == [1, 2, 5]


def test_a_later_source_has_only_its_own_points(rows):
    metrics = rows(steps=100, every=25)
    metrics[-1]["heldout"]["sources"]["maths"] = 1.2
    total, *sources = read_curves(metrics).heldout
    assert total.name == "total" and total.steps.tolist() == [25, 50, 75, 100]
    points = {curve.name: len(curve.steps) for curve in sources}
    assert points == {"code": 4, "maths": 1, "prose": 4, "synthetic": 4}


def test_without_a_measurement_there_is_no_heldout_curve(rows):
    assert read_curves(rows(every=0)).heldout == []


def test_a_task_curve_uses_acc_norm_if_present(rows_with_tasks):
    hellaswag, lambada = read_curves(rows_with_tasks(steps=100)).tasks
    assert (hellaswag.name, hellaswag.metric) == ("hellaswag", "acc_norm")
    assert (lambada.name, lambada.metric) == ("lambada", "acc")
    assert hellaswag.steps.tolist() == [50, 100] and hellaswag.values.tolist() == [0.35, 0.45]
    assert lambada.values.tolist() == [0.2, 0.3]
    assert np.asarray(lambada.standard_errors).tolist() == [0.0201] * 2
    assert lambada.format_point(-1) == "0.300 ± 0.020"


def test_a_task_curve_has_only_its_own_points(rows_with_tasks):
    metrics = rows_with_tasks(steps=100, tasks_every=25)
    metrics[24]["tasks"]["piqa"] = {"acc": 0.5}
    del metrics[99]["tasks"]["lambada"]
    points = {curve.name: curve.steps.tolist() for curve in read_curves(metrics).tasks}
    assert points == {"hellaswag": [25, 50, 75, 100], "lambada": [25, 50, 75], "piqa": [25]}


def test_a_task_curve_does_not_mix_metrics(rows_with_tasks):
    metrics = rows_with_tasks(steps=100)
    metrics[49]["tasks"]["lambada"]["acc_norm"] = 0.9
    assert read_curves(metrics).tasks[1].values.tolist() == [0.9]
    metrics[49]["tasks"]["hellaswag"]["acc_norm"] = None
    assert read_curves(metrics).tasks[0].values.tolist() == [0.45]


def test_an_accuracy_without_an_error_has_no_plus_minus(rows_with_tasks):
    metrics = rows_with_tasks(steps=100)
    metrics[99]["tasks"]["lambada"]["error"] = "?"
    assert read_curves(metrics).tasks[1].format_point(-1) == "0.300"


def test_without_a_task_there_is_no_curve(rows):
    assert read_curves(rows()).tasks == []


def test_damaged_tasks_do_not_hide_others(rows_with_tasks, rows, damaged):
    metrics = rows_with_tasks(steps=100)
    metrics[49]["tasks"] = damaged
    assert [curve.steps.tolist() for curve in read_curves(metrics).tasks] == [[100], [100]]
    only_damaged = rows(steps=100)
    only_damaged[49]["tasks"] = damaged
    assert read_curves(only_damaged).tasks == []


@pytest.mark.parametrize(
    "heldout",
    [None, [], "1.1", {"bits_per_byte": None}, {"sources": {"a": 1.0}}, {"bits_per_byte": "1"}],
)
def test_damaged_heldout_values_do_not_hide_others(rows, heldout):
    metrics = rows(steps=100)
    metrics[49]["heldout"] = heldout
    assert read_curves(metrics).heldout[0].steps.tolist() == [100]
    for sources in (None, [1.0], {"code": "1.0"}):
        metrics[49]["heldout"] = {"bits_per_byte": 1.0, "sources": sources}
        total, code, *_ = read_curves(metrics).heldout
        assert total.steps.tolist() == [50, 100] and code.steps.tolist() == [100]
