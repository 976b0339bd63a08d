"""Models in 8 or 4 bits compute nearly the same, and can be used everywhere."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gnano.config.inference_config import SamplingParams
from gnano.infer.engine import Engine
from gnano.infer.quantize import Int4Linear, Int8Linear, quantize_model
from gnano.model.layers import Linear
from gnano.model.transformer import GPT

KINDS = {"int8": (Int8Linear, 127 * 2), "int4": (Int4Linear, 15)}


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
    greedy = SamplingParams(temperature=0)
    assert loaded.generate("Once", 24, greedy) == engine.generate("Once", 24, greedy)
    small = Engine.load(folder, "cpu", "bf16").model
    assert small.model.embed_tokens.weight.dtype == torch.bfloat16


def test_sizes_that_do_not_divide_are_refused():
    model = GPT(32, n_embd=48, n_layer=1, n_head=2, n_kv_head=1, ffn_hidden=40, block_size=8)
    with pytest.raises(ValueError, match=r"48 × 48, and int4 needs multiples of 16 × 32"):
        quantize_model(model, "int4")
    with pytest.raises(ValueError, match="must be int8 or int4"):
        quantize_model(model, "int3")  # type: ignore[arg-type]
