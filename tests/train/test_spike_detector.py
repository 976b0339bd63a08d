"""A spike is what a person would call one, told from the last steps by medians."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnano.train.stability import SpikeDetector

NO = torch.tensor(False)


def after(values: list[float], window: int = 9, threshold: float = 6.0) -> SpikeDetector:
    spikes = SpikeDetector(window, threshold, torch.device("cpu"))
    for value in values:
        spikes.update(torch.tensor([value, value]).double(), NO)
    return spikes


def found(spikes: SpikeDetector, loss: float, norm: float) -> bool:
    return bool(spikes.is_spike(torch.tensor([loss, norm]).double()))


@given(
    st.lists(st.floats(0.5, 50), min_size=9, max_size=9),
    st.floats(0.1, 500),
    st.floats(3, 20),
)
def test_the_score_is_that_of_numpy(values: list[float], value: float, threshold: float) -> None:
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(np.array(values) - middle))), 1e-3 * middle)
    score = (value - middle) / spread
    if abs(score - threshold) < 1e-6 * threshold:
        return  # as near as rounding
    assert found(after(values, threshold=threshold), value, 0.1) == (score > threshold)


def test_loss_and_norm_are_each_looked_at() -> None:
    spikes = after([3.0, 3.1, 2.9, 3.0, 3.05, 2.95, 3.0, 3.1, 2.9])
    assert not found(spikes, 3.2, 3.2)
    assert found(spikes, 9.0, 3.0) and found(spikes, 3.0, 9.0)
    assert not found(spikes, 0.1, 0.1)  # a low one is no harm


@pytest.mark.parametrize("seen", [0, 1, 8])
def test_nothing_is_a_spike_before_the_window_is_full(seen: int) -> None:
    assert not found(after([3.0] * seen), 1e9, 1e9)


def test_a_skipped_step_is_not_remembered() -> None:
    spikes = after([3.0, 3.1] * 5)
    before = spikes.history.clone()
    spikes.update(torch.tensor([99.0, 99.0]).double(), torch.tensor(True))
    assert torch.equal(spikes.history, before)
