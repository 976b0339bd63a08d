import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gnano.model.layers import Rope, rope_table

LENGTH = 512
CPU = torch.device("cpu")


def unit_vector(seed: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(size, generator=generator, dtype=torch.float64)
    return F.normalize(vector, dim=0)


def at(position: int, vector: torch.Tensor, theta: float) -> torch.Tensor:
    """Return the vector rotated as a query or key of a position."""
    table = rope_table(len(vector), LENGTH, theta, CPU)
    rope = Rope(*(part[position : position + 1] for part in table))
    turned: torch.Tensor = rope.rotate(vector.view(1, 1, 1, -1)).flatten()
    return turned


shapes = {
    "size": st.sampled_from([2, 16, 64, 128]),
    "theta": st.sampled_from([10_000.0, 500_000.0]),
    "seed": st.integers(0, 10_000),
}


@settings(deadline=None)
@given(first=st.integers(0, 255), distance=st.integers(0, 255), **shapes)
def test_attention_depends_on_the_distance_only(first, distance, size, theta, seed):
    q, k = unit_vector(seed, size), unit_vector(seed + 1, size)
    near = at(distance, q, theta) @ at(0, k, theta)
    far = at(first + distance, q, theta) @ at(first, k, theta)
    assert far.item() == pytest.approx(near.item(), abs=1e-4)


@settings(deadline=None)
@given(position=st.integers(0, LENGTH - 1), **shapes)
def test_rotation_keeps_norms_and_position_0(position, size, theta, seed):
    vector = unit_vector(seed, size)
    assert at(position, vector, theta).norm().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(at(0, vector, theta), vector)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_each_pair_rotates_by_its_angle(theta):
    size = 16
    for pair in range(size // 2):
        vector = torch.zeros(size, dtype=torch.float64)
        vector[pair] = 1
        for position in (1, 7, LENGTH - 1):
            angle = position * theta ** (-2 * pair / size)
            turned = at(position, vector, theta)
            assert turned[pair].item() == pytest.approx(math.cos(angle), abs=1e-4)
            assert turned[pair + size // 2].item() == pytest.approx(math.sin(angle), abs=1e-4)


def test_positions_stay_distinct_in_bf16(make_model, random_ids):
    """With angles rounded to bf16, distant positions would be equal."""
    model = make_model(n_layer=1, block_size=LENGTH)
    ids = random_ids(model, 1, LENGTH)
    with torch.no_grad():
        rounded = model.bfloat16()(ids)
        precise = model.float()(ids)
    # both have the same weights, so only activations are rounded
    assert (rounded - precise)[:, 256:].norm() / precise[:, 256:].norm() < 0.03


def test_the_head_keeps_its_dtype():
    for dtype in (torch.float32, torch.bfloat16):
        assert at(3, torch.ones(16, dtype=dtype), 10_000.0).dtype == dtype
