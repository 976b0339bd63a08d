"""What a GPU is asked to do in a step of `1b`, with two of its layers."""

from functools import cache
from typing import Any

import pytest
from tests.gpu.fake_gpu import run_on_fake_gpu

pytestmark = [pytest.mark.slow, pytest.mark.compile]
TOKENS = 8 * 1_024  # of a micro-batch


@cache
def step(**settings: Any) -> Any:
    return run_on_fake_gpu("train_step", layers=2, compile="yes", **settings)


SETTINGS = [
    {"precision": "bf16"},
    {"precision": "fp8"},
    {"precision": "bf16", "documents": True},
    {"precision": "bf16", "optimizer": "muon"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_no_step_waits_for_the_gpu(settings):
    found = step(**settings)
    waits = [name for name in found["calls"] if name.startswith("SYNC") or "pageable" in name]
    assert waits == []
    # PyTorch's own look for waits; its first use warns that it may miss some, as this test may
    assert [text for text in found["warnings"] if "prototype" not in text] == []


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_predicted_memory_is_that_of_pytorchs_allocator(settings):
    found = step(**settings)
    assert found["estimate"] == pytest.approx(found["peak"], rel=0.05)


def test_bf16_copies_no_tensor_around_attention_and_keeps_gradients_of_weights_in_fp32():
    calls = step(precision="bf16")["calls"]
    copies = [name for name in calls if "clone" in name and "grid 14336" in name]  # of all heads
    assert copies == []
    products = [name for name in calls if name.startswith("GEMM")]
    gradients = [name for name in products if f" k={TOKENS} " in name]  # sums over all tokens
    assert len(gradients) >= 4  # of the four shapes of a block's matrices
    assert [name for name in gradients if not name.endswith("-> 0")] == []  # CUDA_R_32F


@pytest.mark.parametrize(
    ("settings", "most"),
    [({"precision": "bf16"}, 375), ({"precision": "fp8"}, 525)],
    ids=str,
)
def test_a_step_launches_no_more_kernels_than_it_did(settings, most):
    """Two micro-batches and AdamW; each launch costs the GPU some microseconds."""
    calls = step(**settings)["calls"]
    kinds = ("KERNEL", "TRITON", "GEMM", "MEMSET")
    launches = sum(number for name, number in calls.items() if name.startswith(kinds))
    assert launches <= most
