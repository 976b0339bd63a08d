"""The learning rate rises, then falls, and never leaves its bounds."""

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from gnano.train.schedule import Schedule


@given(floats(1e-6, 1), integers(0, 50), floats(0, 1), integers(60, 500))
def test_it_rises_to_the_peak_and_falls_to_the_floor(
    peak: float, warmup: int, floor: float, steps: int
) -> None:
    schedule = Schedule(peak=peak, warmup=warmup, floor=floor)
    rates = [schedule(step, steps) for step in range(steps)]
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[0] > 0
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert max(rates) == pytest.approx(peak)
    assert rates[-1] == pytest.approx(floor * peak)


def test_half_way_down_it_is_half_way_between() -> None:
    schedule = Schedule(peak=1.0, warmup=0, floor=0.1)
    assert schedule(50, 101) == pytest.approx(0.55)
