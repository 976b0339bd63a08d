"""Fused, repacked and quantized matrices compute the same, or nearly the same in 8 or 4 bits."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gnano.config.inference_config import SamplingParams
from gnano.infer.engine import Engine
from gnano.infer.throughput import count_weight_bytes
from gnano.infer.weight_formats import (
    Int4Linear,
    Int8Linear,
    OneDnnLinear,
    fuse_projections,
    prepack_onednn,
    quantize_model,
    without_onednn_for_one_row,
)
from gnano.model.attention import KVCache
from gnano.model.transformer import GPT, Linear

GREEDY = SamplingParams(temperature=0)
KINDS = {"int8": (Int8Linear, 127 * 2), "int4": (Int4Linear, 15)}


def can_prepack(dtype):
    """Return whether oneDNN multiplies packed matrices of the dtype on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


# oneDNN packs nothing on a Mac, and only fp32 on a processor without AVX-512: test what it can
PACKED = [dtype for dtype in (torch.float32, torch.bfloat16) if can_prepack(dtype)]
needs_packing = pytest.mark.skipif(not PACKED, reason="this PyTorch has no oneDNN")
needs_packed_bf16 = pytest.mark.skipif(
    not can_prepack(torch.bfloat16), reason="this CPU does not multiply bf16"
)


def test_fused_projections_compute_the_same_with_and_without_a_cache(make_engine):
    engine, fused = make_engine(), make_engine()
    size = count_weight_bytes(engine.model)
    fuse_projections(fused.model)
    assert count_weight_bytes(fused.model) == size, "each matrix is kept once"
    ids = torch.randint(engine.model.config.vocab_size, (3, 40))
    with torch.no_grad():
        expected, found = engine.model(ids), fused.model(ids)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
        cache = KVCache(fused.model.config, 3, 40)
        parts = [fused.model(part, cache) for part in ids.split([17, 1, 22], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-4, rtol=1e-5)


def test_fused_projections_generate_the_same_texts(make_engine):
    engine, fused = make_engine(), make_engine()
    fuse_projections(fused.model)
    prompts = ["", "Once upon a time", "東京", "word " * 12]
    expected = [engine.generate(prompt, 24, GREEDY) for prompt in prompts]
    assert [fused.generate(prompt, 24, GREEDY) for prompt in prompts] == expected
    assert [found[0].text for found in fused.generate_batch(prompts, 24, GREEDY)] == expected


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


@settings(max_examples=30, deadline=None)
@given(
    quant=st.sampled_from(list(KINDS)),
    rows=st.sampled_from([1, 3, 48, 49, 200]),
    shape=st.sampled_from([(16, 32), (48, 96), (128, 64)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_a_product_differs_only_by_rounding_the_matrix(quant, rows, shape, dtype, seed):
    """The bound is half a quantization step per weight."""
    generator = torch.Generator().manual_seed(seed)
    linear = Linear(shape[1], shape[0]).to(dtype)
    weight = torch.randn(shape, generator=generator) * 0.02
    with torch.no_grad():
        linear.weight.copy_(weight)
    weight = linear.weight.detach().double()
    kind, steps = KINDS[quant]
    x = torch.randn(rows, shape[1], generator=generator).to(dtype)
    found = kind(linear)(x)
    assert found.dtype == dtype and found.shape == (rows, shape[0])
    expected = F.linear(x.double(), weight)
    groups = weight.view(shape[0], -1, 32)
    if quant == "int8":
        step = (2 * weight.abs().amax(1, keepdim=True) / steps).expand(shape)
    else:
        step = ((groups.amax(2) - groups.amin(2)) / steps).repeat_interleave(32, 1)
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-5  # of scales, zeros and products
    bound = F.linear(x.double().abs(), step / 2 * 1.02 + rounding * weight.abs().amax())
    assert ((found.double() - expected).abs() <= bound).all()


@pytest.fixture(params=["int8", "int4"])
def both(request, make_engine):
    engine, small = make_engine(), make_engine()
    quantize_model(small.model, request.param)
    return engine, small


def test_logits_are_close_and_no_large_matrix_remains(both):
    engine, small = both
    ids = torch.tensor([engine.encode_prompt("Once upon a time there was a small engine")])
    with torch.no_grad():
        expected, found = engine.model(ids), small.model(ids)
    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < 0.25
    assert not any(isinstance(module, Linear) for module in small.model.modules())
    kept = sum(b.numel() * b.element_size() for b in small.model.buffers())
    assert kept < 0.35 * sum(p.numel() * 4 for p in engine.model.parameters() if p.dim() == 2)


def test_a_checkpoint_is_quantized_at_loading(make_engine, save_engine):
    engine = make_engine()
    folder = save_engine(engine)
    quantize_model(engine.model, "int8")
    loaded = Engine.load(folder, "cpu", quant="int8")
    assert loaded.generate("Once", 24, GREEDY) == engine.generate("Once", 24, GREEDY)
    small = Engine.load(folder, "cpu", "bf16").model
    assert small.model.embed_tokens.weight.dtype == torch.bfloat16


def test_sizes_that_do_not_divide_are_refused():
    model = GPT(32, n_embd=48, n_layer=1, n_head=2, n_kv_head=1, ffn_hidden=40, block_size=8)
    with pytest.raises(ValueError, match=r"48 × 48, and int4 needs multiples of 16 × 32"):
        quantize_model(model, "int4")
    with pytest.raises(ValueError, match="must be int8 or int4"):
        quantize_model(model, "int3")  # type: ignore[arg-type]
