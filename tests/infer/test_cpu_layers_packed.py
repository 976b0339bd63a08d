"""Matrices in oneDNN's layout compute the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnano.config.inference_config import SamplingParams
from gnano.infer.cpu_layers import (
    OneDnnLinear,
    can_prepack,
    prepack_onednn,
    without_onednn_for_one_row,
)
from gnano.infer.engine import Engine
from gnano.infer.throughput import count_weight_bytes
from gnano.model.layers import Linear

GREEDY = SamplingParams(temperature=0)
# oneDNN packs nothing on a Mac, and only fp32 on a processor without AVX-512: test what it can
PACKED = [dtype for dtype in (torch.float32, torch.bfloat16) if can_prepack(dtype)]
needs_packing = pytest.mark.skipif(not PACKED, reason="this PyTorch has no oneDNN")
needs_packed_bf16 = pytest.mark.skipif(
    not can_prepack(torch.bfloat16), reason="this CPU does not multiply bf16"
)


@needs_packing
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 70),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    dtype=st.sampled_from(PACKED or [torch.float32]),
    seed=st.integers(0, 1000),
)
def test_a_packed_product_is_that_of_the_matrix(rows, shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    linear = Linear(shape[1], shape[0]).to(dtype)
    x = torch.randn(rows, 1, shape[1], generator=generator).to(dtype)
    with torch.no_grad():
        expected = x.double() @ linear.weight.double().T
        found = OneDnnLinear(linear)(x)
    assert found.dtype == dtype and found.shape == expected.shape
    bound = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert (found.double() - expected).norm() <= bound * expected.norm() + 1e-6


@pytest.mark.parametrize("dtype", PACKED)
def test_a_packed_model_generates_the_same_and_has_no_second_copy(make_engine, dtype):
    engine, packed = make_engine(), make_engine()
    engine.model.to(dtype)
    size = count_weight_bytes(engine.model)
    prepack_onednn(packed.model.to(dtype))
    assert not any(isinstance(module, Linear) for module in packed.model.modules())
    assert count_weight_bytes(packed.model) == size
    ids = torch.tensor([engine.encode_prompt("Once upon a time there was a small engine")])
    with torch.no_grad():
        expected, found = engine.model(ids), packed.model(ids)
    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < {torch.float32: 1e-5}.get(dtype, 0.03)
    if dtype == torch.float32:
        for prompt in ("", "Once", "東京"):
            assert packed.generate(prompt, 24, GREEDY) == engine.generate(prompt, 24, GREEDY)


@needs_packed_bf16
def test_onednn_is_disabled_for_one_row_and_restored(make_engine):
    """Otherwise later products of the process would be slow."""
    model = make_engine().model.to(torch.bfloat16)
    with pytest.raises(KeyboardInterrupt), without_onednn_for_one_row(model):
        assert not torch._C._get_mkldnn_enabled()
        raise KeyboardInterrupt
    assert torch._C._get_mkldnn_enabled()
    with without_onednn_for_one_row(prepack_onednn(model)):
        assert torch._C._get_mkldnn_enabled()


@needs_packing
def test_only_loaded_models_are_repacked(make_engine, save_engine):
    learning = make_engine()
    learning.generate_batch(["a", "b"], 2)
    assert isinstance(learning.model.lm_head, Linear)
    folder = save_engine(learning)
    assert isinstance(Engine.load(folder, "cpu", "fp32").model.lm_head, OneDnnLinear)
    if not can_prepack(torch.bfloat16):
        pytest.skip("this CPU does not multiply bf16")
    engine = Engine.load(folder, "cpu", "bf16")
    engine.generate_batch(["a"], 2)
    assert isinstance(engine.model.lm_head, Linear)
    engine.generate_batch(["a", "b"], 2)
    assert isinstance(engine.model.lm_head, OneDnnLinear)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unsupported_matrices_are_not_repacked(make_engine, dtype):
    """Without oneDNN kernels for a dtype, packing would be a RuntimeError."""
    engine = make_engine()
    laid_out = isinstance(prepack_onednn(engine.model.to(dtype)).lm_head, OneDnnLinear)
    assert laid_out == can_prepack(dtype)
