"""FP8 training: products are as exact as 8 bits allow, and nothing else changes."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gnano.config.model_config import PRESETS, ModelConfig
from gnano.model.flops import flops_per_token, parameters_by_part
from gnano.model.fp8 import convert_to_fp8, fp8_linear, fp8_unsupported_reason
from gnano.model.hf_io import load_model, save_model
from gnano.model.transformer import GPT

# half the distance to the next number, relative, and absolute for the smallest ones
E4M3 = (2.0**-4, 2.0**-10 / 448)
E5M2 = (2.0**-3, 2.0**-17 / 57_344)
SHAPE = ModelConfig(
    vocab_size=256, n_embd=64, n_layer=2, n_head=4, n_kv_head=2, ffn_hidden=96, block_size=32
)


def problem(tokens=48, inputs=64, outputs=48, scale=1.0, seed=0, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(tokens, inputs, generator=generator) * scale).to(dtype)
    weight = torch.randn(outputs, inputs, generator=generator) * 0.02
    grad = torch.randn(tokens, outputs, generator=generator).to(dtype)
    return x.requires_grad_(), weight.requires_grad_(), grad


def worst(tensor, bits):
    """Return the largest rounding error of each value in 8 bits, relative and absolute."""
    relative, absolute = bits
    magnitude = tensor.detach().double().abs()
    return torch.maximum(relative * magnitude, absolute * magnitude.max()) * (1 + 1e-6)


def assert_within(ours, a, b, a_bits, b_bits):
    """Return a @ bᵀ in float64, and the largest error from rounding both sides."""
    exact, a_off, b_off = a.double() @ b.double().T, worst(a, a_bits), worst(b, b_bits)
    a_size, b_size = a.double().abs(), b.double().abs()
    allowed = a_off @ b_size.T + a_size @ b_off.T + a_off @ b_off.T
    allowed += exact.abs() * 2.0**-8 + 1e-30  # the bf16 result
    assert ((ours.double() - exact).abs() <= allowed * 1.01).all()


def relative(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def trained(model, ids):
    """Return the loss and gradients of a training step."""
    model.zero_grad()
    loss = model.loss(ids, ids.roll(-1, 1)) / ids.numel()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def small(fp8=False, dtype=torch.bfloat16, seed=0):
    torch.manual_seed(seed)
    model = GPT.from_config(SHAPE)
    model.compute_dtype = dtype
    if fp8:
        convert_to_fp8(model, min_intensity=0)
    return model


@pytest.fixture
def ids():
    return torch.randint(256, (4, 32), generator=torch.Generator().manual_seed(1))


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 40),
    inputs=st.sampled_from([16, 48, 112]),
    outputs=st.sampled_from([16, 32, 80]),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e20]),
    seed=st.integers(0, 10_000),
)
def test_all_three_products_stay_within_rounding_error(tokens, inputs, outputs, scale, seed):
    x, weight, grad = problem(tokens, inputs, outputs, scale, seed)
    y = fp8_linear(x, weight)
    y.backward(grad)
    assert_within(y.detach(), x.detach(), weight.detach(), E4M3, E4M3)
    assert_within(x.grad, grad, weight.detach().T, E5M2, E4M3)
    assert_within(weight.grad, grad.T, x.detach().T, E5M2, E4M3)


def test_typical_errors_are_4_percent_and_6_for_gradients():
    x, weight, grad = problem(512, 256, 256)
    y = fp8_linear(x, weight)
    y.backward(grad)
    exact_y = F.linear(x.double(), weight.double())
    to_x, to_weight = torch.autograd.grad(exact_y, (x, weight), grad.double())
    assert relative(y, exact_y) < 0.045
    assert relative(x.grad, to_x) < 0.075
    assert relative(weight.grad, to_weight) < 0.075


def test_shapes_and_dtypes_are_those_of_a_linear_layer():
    x, weight, _ = problem(2 * 3 * 5, 32, 48)
    x = x.detach().view(2, 3, 5, 32).requires_grad_()
    y = fp8_linear(x, weight)
    y.float().square().sum().backward()
    assert y.shape == (2, 3, 5, 48) and y.dtype == torch.bfloat16
    assert x.grad.shape == x.shape and x.grad.dtype == torch.bfloat16
    assert weight.grad.shape == weight.shape and weight.grad.dtype == torch.float32


def test_weights_gathered_in_bf16_get_their_gradients_in_bf16():
    x, weight, grad = problem()
    gathered = weight.detach().bfloat16().requires_grad_()
    fp8_linear(x, gathered).backward(grad)
    assert gathered.grad.dtype == torch.bfloat16


def test_the_number_of_tokens_need_not_be_a_multiple_of_16():
    x, weight, _ = problem(tokens=48)
    x.data[37:] = 0
    y = fp8_linear(x, weight)
    torch.testing.assert_close(fp8_linear(x[:37], weight), y[:37], rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30, 1e-10, 1e10, 1e37])
def test_finite_numbers_of_any_magnitude_stay_finite(scale):
    x, weight, grad = problem(scale=scale)
    y = fp8_linear(x, weight)
    y.backward(grad * 1e-30)
    for tensor in (y, x.grad, weight.grad):
        assert tensor.isfinite().all()
    if scale == 0:
        assert not y.any() and not weight.grad.any()


ORDERS = {  # in which a kernel may apply both scales to the product, in fp32
    "a, then b": lambda a, b, a_scale, b_scale: (a @ b * a_scale) * b_scale,
    "b, then a": lambda a, b, a_scale, b_scale: (a @ b * b_scale) * a_scale,
    "both together": lambda a, b, a_scale, b_scale: (a @ b) * (a_scale * b_scale),
    "before it": lambda a, b, a_scale, b_scale: (a * a_scale) @ (b * b_scale),
    "before it, left": lambda a, b, a_scale, b_scale: ((a * a_scale) * b_scale) @ b,
    "before it, right": lambda a, b, a_scale, b_scale: a @ ((b * b_scale) * a_scale),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30, 1e-10, 1.0, 1e10, 1e30, 1e37])
@pytest.mark.parametrize("grad_scale", [1e-30, 1.0])
def test_scales_overflow_in_no_order_of_multiplication(order, scale, grad_scale):
    calls = []

    def product(a, b, scale_a, scale_b, out_dtype, use_fast_accum):
        calls.append((scale_a, scale_b))
        return ORDERS[order](a.float(), b.float(), scale_a, scale_b).to(out_dtype)

    x, weight, grad = problem(scale=scale)
    grad = grad * grad_scale
    with mock.patch.object(torch, "_scaled_mm", product):
        y = fp8_linear(x, weight)
        y.backward(grad)
    assert len(calls) == 3
    exact = F.linear(x.double(), weight.double())
    exact_grads = torch.autograd.grad(exact, (x, weight), grad.double())
    for ours, theirs in zip((y, x.grad, weight.grad), (exact, *exact_grads), strict=True):
        assert ours.isfinite().all()
        if 1e-30 < theirs.abs().max() < 1e38:
            assert relative(ours, theirs) < 0.1


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_values_that_are_not_finite_remain_visible(bad):
    """A failed step must be recognizable, so that the trainer skips it."""
    x, weight, grad = problem()
    grad[3, 5] = bad
    fp8_linear(x, weight).backward(grad)
    assert x.grad.isnan().any() and weight.grad.isnan().any()
    x.data[3, 5] = bad
    assert fp8_linear(x, weight).isnan().any()


class OnGpu(TorchDispatchMode):
    """Applies PyTorch's rules for GPUs to every FP8 product; those for CPUs are less strict."""

    def __init__(self):
        super().__init__()
        self.products = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation is torch.ops.aten._scaled_mm.default:
            self.products.append([tensor.dtype for tensor in arguments[:2]])
            with FakeTensorMode():
                there = [
                    torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda")
                    for t in arguments[:4]
                ]
                operation(*there, *arguments[4:], **(options or {}))
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("tokens", [1, 37, 48])
def test_every_product_has_a_layout_and_size_for_gpus(tokens):
    x, weight, grad = problem(tokens)
    with OnGpu() as gpu:
        # no side needs the memory layout of the product
        fp8_linear(x.T.contiguous().T, weight).backward(grad.T.contiguous().T)
    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    assert gpu.products == [[e4m3, e4m3], [e5m2, e4m3], [e5m2, e4m3]]


def test_backward_stores_one_byte_per_input_value_and_no_weight():
    x, weight, _ = problem(1024)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fp8_linear(x, weight)
    assert kept.pop(weight.untyped_storage().data_ptr())
    assert sum(kept.values()) <= x.numel() + 16  # and two scales


def test_a_model_in_fp8_has_nearly_the_loss_and_gradients_of_bf16(ids):
    exact = trained(small(dtype=torch.float32), ids)
    bf16 = trained(small(), ids)
    fp8 = trained(small(fp8=True), ids)
    assert fp8[0] == pytest.approx(bf16[0], rel=5e-3)
    for name, gradient in exact[1].items():
        assert relative(bf16[1][name], gradient) < 0.05, name
        assert relative(fp8[1][name], gradient) < 0.2, name


def test_a_model_in_fp8_learns(ids):
    model = small(fp8=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss, _ = trained(model, ids)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < losses[0] - 1


def test_gradients_accumulate_over_micro_batches(ids):
    model = small(fp8=True)
    parts = [trained(model, half)[1] for half in ids.chunk(2)]
    model.zero_grad()
    for half in ids.chunk(2):
        (model.loss(half, half.roll(-1, 1)) / half.numel()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, parts[0][name] + parts[1][name])


def test_evaluation_does_not_use_fp8(ids):
    """Weights are served in bf16 or fp32, so their loss is measured in these."""
    fp8, bf16 = small(fp8=True).eval(), small().eval()
    with torch.no_grad():
        assert torch.equal(fp8.loss(ids, ids), bf16.loss(ids, ids))
        assert not torch.equal(fp8.train().loss(ids, ids), bf16.loss(ids, ids))


def test_the_state_dict_does_not_change(ids, tmp_path):
    fp8, plain = small(fp8=True), small()
    trained(fp8, ids)
    for model, folder in ((fp8, tmp_path / "fp8"), (plain, tmp_path / "plain")):
        folder.mkdir()
        save_model(model, folder, eos_token_id=0)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "fp8" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    loaded = load_model(tmp_path / "fp8")
    assert {type(module) for module in loaded.modules()} == {type(m) for m in plain.modules()}


def test_flops_in_fp8_are_those_of_bf16_and_of_the_formula(ids):
    """FP8 products count like those of bf16."""
    counts = []
    for model in (small(), small(fp8=True)):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.loss(ids, ids).backward()
        counts.append(counter.get_total_flops())
    in_fp8 = counter.get_flop_counts()["Global"][torch.ops.aten._scaled_mm]
    matrices = parameters_by_part(SHAPE)["attention"] + parameters_by_part(SHAPE)["feed-forward"]
    norms = 6 * parameters_by_part(SHAPE)["norms"]
    assert counts[0] == counts[1] == ids.numel() * (flops_per_token(SHAPE) - norms)
    assert in_fp8 == ids.numel() * 6 * matrices


@pytest.mark.slow
@pytest.mark.compile
def test_a_compiled_block_is_one_graph_and_computes_the_same(ids):
    eager, compiled = small(fp8=True), small(fp8=True)
    # checks the graph only; generating code would take a minute
    compiled.model.layers[0].compile(fullgraph=True, backend="aot_eager")
    (loss, gradients), (expected, expected_gradients) = (
        trained(model, ids) for model in (compiled, eager)
    )
    assert loss == pytest.approx(expected, rel=1e-3)
    for name, gradient in expected_gradients.items():
        assert relative(gradients[name], gradient) < 0.1, name


def on_meta(shape):
    with torch.device("meta"):
        return GPT.from_config(PRESETS[shape])


def test_in_the_reference_model_the_large_layers_of_every_block_run_in_fp8():
    names = convert_to_fp8(on_meta("1b"))
    large = ["self_attn.q_proj", "self_attn.o_proj"]
    large += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    assert names == [f"model.layers.{n}.{name}" for n in range(24) for name in large]


def test_only_linear_layers_of_blocks_are_converted():
    model, before = on_meta("1b"), on_meta("1b")
    names = set(convert_to_fp8(model, min_intensity=0))
    for (name, module), other in zip(model.named_modules(), before.modules(), strict=True):
        assert (type(module) is type(other)) == (name not in names), name
    assert "lm_head" not in names and len(names) == 24 * 7


def test_a_width_that_is_not_a_multiple_of_16_is_not_converted(make_model):
    model = make_model(ffn_hidden=100)
    names = convert_to_fp8(model, min_intensity=0)
    assert not [name for name in names if "mlp" in name] and len(names) == 8


def test_a_model_without_a_large_layer_is_refused():
    with pytest.raises(ValueError, match=r"No layer of this model gains from FP8.*bf16"):
        convert_to_fp8(on_meta("10m"))


@pytest.mark.parametrize(
    ("capability", "chip", "runs"),
    [
        ((8, 0), None, False),
        ((8, 6), None, False),
        ((8, 9), None, True),
        ((9, 0), None, True),
        ((12, 0), None, True),
        ((9, 4), "gfx942:sramecc+:xnack-", False),  # MI300X: another FP8 format
        ((9, 0), "gfx90a:sramecc+:xnack-", False),
        ((9, 5), "gfx950:sramecc+:xnack-", True),
    ],
)
def test_a_gpu_without_fp8_is_refused_by_name(capability, chip, runs):
    device = torch.device("cuda")
    with (
        mock.patch.object(torch.cuda, "get_device_name", return_value="Some GPU"),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=capability),
        mock.patch.object(
            torch.cuda,
            "get_device_properties",
            return_value=SimpleNamespace(gcnArchName=chip or ""),
        ),
        mock.patch.object(torch.version, "hip", "7.0" if chip else None),
    ):
        reason = fp8_unsupported_reason(device)
    if runs:
        assert reason is None
    else:
        assert reason is not None and "Some GPU" in reason and reason.endswith(".")


def test_a_cpu_is_refused():
    assert "needs a GPU" in (fp8_unsupported_reason(torch.device("cpu")) or "")
