"""The learning rate rises, then falls, and never leaves its bounds."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from

from gnano.config.train_config import LRSchedule

KINDS = ["cosine", "wsd", "linear"]


@given(
    sampled_from(KINDS),
    floats(1e-6, 1),
    integers(0, 50),
    floats(0, 1),
    floats(0, 1),
    integers(60, 500),
)
def test_the_rate_rises_to_the_peak_and_falls_to_the_floor(kind, peak, warmup, floor, decay, steps):
    falling = {"decay": decay} if kind == "wsd" else {}
    schedule = LRSchedule(kind=kind, peak=peak, warmup=warmup, floor=floor, **falling)
    rates = [schedule.lr_at(step, steps) for step in range(steps)]
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[0] > 0
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert max(rates) == pytest.approx(peak)
    # a decay over less than half a step is none
    last = peak if kind == "wsd" and round(decay * steps) == 0 else floor * peak
    assert rates[-1] == pytest.approx(last)


@given(floats(0, 1), integers(0, 50), integers(60, 500))
def test_wsd_stays_at_the_peak_until_its_decay(decay, warmup, steps):
    schedule = LRSchedule(kind="wsd", peak=1.0, warmup=warmup, floor=0.0, decay=decay)
    rates = [schedule.lr_at(step, steps) for step in range(warmup, steps)]
    below = sum(rate < 1.0 for rate in rates)
    assert below == min(round(decay * steps), steps - 1 - warmup)
    falls = [a - b for a, b in pairwise(rates) if a - b > 1e-12]
    assert not falls or max(falls) == pytest.approx(min(falls))  # straight down


@given(integers(0, 50), floats(0, 1), integers(60, 500), integers(0, 499))
def test_the_cosine_equals_the_published_formula(warmup, floor, steps, step):
    rate = LRSchedule(peak=0.5, warmup=warmup, floor=floor).lr_at(min(step, steps - 1), steps)
    step = min(step, steps - 1)
    if step < warmup:
        assert rate == pytest.approx(0.5 * (step + 1) / warmup)
    else:
        angle = math.pi * (step - warmup) / (steps - 1 - warmup)
        low = 0.5 * floor
        assert rate == pytest.approx(low + 0.5 * (0.5 - low) * (1 + math.cos(angle)))


@pytest.mark.parametrize(("kind", "rate"), [("cosine", 0.55), ("linear", 0.55), ("wsd", 1.0)])
def test_the_rate_halfway_through_a_run(kind, rate):
    schedule = LRSchedule(kind=kind, peak=1.0, warmup=0, floor=0.1)
    assert schedule.lr_at(50, 101) == pytest.approx(rate)


@pytest.mark.parametrize(
    "bad", [{"peak": 0.0}, {"warmup": -1}, {"floor": 1.1}, {"decay": -0.1}, {"decay": 2.0}]
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=rf"train\.schedule\.{next(iter(bad))}"):
        LRSchedule(**bad)
