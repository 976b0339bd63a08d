"""Spike detection by a robust z-score over the last steps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnano.train.stability import SpikeDetector

NO = torch.tensor(False)


def detector_after(values: list[float], window: int = 9, threshold: float = 6.0) -> SpikeDetector:
    detector = SpikeDetector(window, threshold, torch.device("cpu"))
    for value in values:
        detector.update(torch.tensor([value, value]).double(), NO)
    return detector


def is_spike(detector: SpikeDetector, loss: float, norm: float) -> bool:
    return bool(detector.is_spike(torch.tensor([loss, norm]).double()))


@given(
    st.lists(st.floats(0.5, 50), min_size=9, max_size=9),
    st.floats(0.1, 500),
    st.floats(3, 20),
)
def test_z_score_matches_numpy(values: list[float], value: float, threshold: float) -> None:
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(np.array(values) - middle))), 1e-3 * middle)
    score = (value - middle) / spread
    if abs(score - threshold) < 1e-6 * threshold:
        return  # within rounding
    assert is_spike(detector_after(values, threshold=threshold), value, 0.1) == (score > threshold)


def test_loss_and_norm_are_both_checked() -> None:
    detector = detector_after([3.0, 3.1, 2.9, 3.0, 3.05, 2.95, 3.0, 3.1, 2.9])
    assert not is_spike(detector, 3.2, 3.2)
    assert is_spike(detector, 9.0, 3.0) and is_spike(detector, 3.0, 9.0)
    assert not is_spike(detector, 0.1, 0.1)  # low values are fine


@pytest.mark.parametrize("seen", [0, 1, 8])
def test_no_spike_before_the_window_is_full(seen: int) -> None:
    assert not is_spike(detector_after([3.0] * seen), 1e9, 1e9)


def test_skipped_step_does_not_enter_the_window() -> None:
    detector = detector_after([3.0, 3.1] * 5)
    before = detector.history.clone()
    detector.update(torch.tensor([99.0, 99.0]).double(), torch.tensor(True))
    assert torch.equal(detector.history, before)
