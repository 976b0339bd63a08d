"""How does a linear layer compute in 8 bits? Stretch, round, multiply, shrink back.

A number of 8 bits has either three bits after the point and a range of ±448 (e4m3) or two
and ±57,344 (e5m2). So a tensor is stretched until its largest value is the format's largest,
and rounded; what one then stands for, its unit, multiplies the product of the two:

    x ──/ unit──▶ 8 bits ─┐
                          ├─ product, summed in fp32 ──× both units──▶ y in x's dtype
    w ──/ unit──▶ 8 bits ─┘

    y  = x wᵀ      e4m3 × e4m3
    ∂x = ∂y w      e5m2 × e4m3      gradients span more powers of two than they need digits
    ∂w = ∂yᵀ x     e5m2 × e4m3      in the parameter's dtype: fp32 master weights lose nothing

Backward keeps x in its 8 bits, half of what bf16 keeps. It keeps no copy of the weights: they
are rounded again from the parameter, which is there anyway, by the unit of the forward pass.
Units are tensors of no dimensions, so nothing waits for the device.

The formats and where each serves: Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433;
one unit a tensor, measured every time, is torchao's "tensorwise" recipe.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.model.layers import Linear
from gnano.model.transformer import GPT

FORWARD_DTYPE, GRAD_DTYPE = torch.float8_e4m3fn, torch.float8_e5m2
DIM_MULTIPLE = 16  # the kernels want every dimension to be a multiple of it
MIN_AMAX = 2.0**-100  # a tensor whose values are all below it has this for its largest
# I·O / (I + O) from which rounding costs less than FP8 saves. Saved is half of 3 products,
# 3·I·O FLOPs a token at some 700 TFLOP/s; rounding reads and writes some 7 bytes for each of
# the I + O values at some 4 TB/s (an H100 or H200): 7/3 · 700 / 4 = 408
MIN_INTENSITY = 400


def fp8_linear(x: Tensor, weight_OI: Tensor) -> Tensor:
    """x @ weightᵀ with its three products in FP8; from [..., I] to [..., O].

    The result has x's dtype, each gradient that of its tensor. What is not finite in x, the
    weight or a gradient makes all of a result NaN. I and O must be multiples of 16; the number
    of tokens need not be.
    """
    x_NI = x.reshape(-1, x.shape[-1])
    tokens = len(x_NI)
    if tokens % DIM_MULTIPLE:  # rows of zeros change no unit and no product
        x_NI = F.pad(x_NI, (0, 0, 0, -tokens % DIM_MULTIPLE))
    y_NO: Tensor = _Fp8LinearFunction.apply(x_NI, weight_OI)  # type: ignore[no-untyped-call]
    return y_NO[:tokens].view(*x.shape[:-1], -1)


def convert_to_fp8(model: GPT, min_intensity: float = MIN_INTENSITY) -> list[str]:
    """Let the large layers of the blocks train in FP8; returns their names.

    The head (its errors are the loss's own), the embedding, norms and attention's scores stay
    as they are, and so do layers that rounding would slow down, such as the key and value
    projections of all our shapes. A layer computes in FP8 only while it trains: held-out text
    is measured on the weights as they will be served.

    Raises ValueError where no layer is large enough.
    """
    linears = {
        name: layer
        for name, layer in model.model.layers.named_modules(prefix="model.layers")
        if isinstance(layer, Linear)
    }
    names = [name for name, layer in linears.items() if _is_convertible(layer, min_intensity)]
    if not names:
        raise ValueError(
            f"No layer of this model gains from FP8 (train.precision): inputs × outputs / "
            f"(inputs + outputs) has to be at least {min_intensity:g}, and both a multiple of {DIM_MULTIPLE}; here "
            f'it is {max(map(_intensity, linears.values())):.0f} at most. Choose "bf16".'
        )
    for name in names:
        linears[name].__class__ = Fp8Linear
    return names


class Fp8Linear(Linear):
    """A `Linear` that trains in FP8; its parameter and its name are those of any other."""

    def forward(self, x: Tensor) -> Tensor:
        return fp8_linear(x, self.weight) if self.training else super().forward(x)


def _is_convertible(layer: Linear, min_intensity: float) -> bool:
    return (
        not any(size % DIM_MULTIPLE for size in layer.weight.shape)
        and _intensity(layer) >= min_intensity
    )


def _intensity(layer: Linear) -> float:
    """Multiplications for each value rounded."""
    outputs, inputs = layer.weight.shape
    return inputs * outputs / (inputs + outputs)


class _Fp8LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        x_unit, w_unit = (
            _compute_scale(x_NI, FORWARD_DTYPE),
            _compute_scale(weight_OI, FORWARD_DTYPE),
        )
        x8_NI, w8_OI = (
            _quantize(x_NI, x_unit, FORWARD_DTYPE),
            _quantize(weight_OI, w_unit, FORWARD_DTYPE),
        )
        ctx.save_for_backward(x8_NI, x_unit, weight_OI, w_unit)
        # fast: fewer bits between the partial sums, which gradients cannot do without
        return _scaled_mm(x8_NI, w8_OI, x_unit, w_unit, x_NI.dtype, fast_accum=True)

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor, Tensor]:
        x8_NI, x_unit, weight_OI, w_unit = ctx.saved_tensors
        grad_unit = _compute_scale(grad_NO, GRAD_DTYPE)
        grad8_NO = _quantize(grad_NO, grad_unit, GRAD_DTYPE)
        w8_OI = _quantize(weight_OI, w_unit, FORWARD_DTYPE)
        grad_x_NI = _scaled_mm(grad8_NO, w8_OI.t(), grad_unit, w_unit, grad_NO.dtype)
        grad_w_OI = _scaled_mm(grad8_NO.t(), x8_NI.t(), grad_unit, x_unit, weight_OI.dtype)
        return grad_x_NI, grad_w_OI


def _compute_scale(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """What 1 in 8 bits stands for, so that the tensor's largest value is the format's."""
    return tensor.abs().amax().float().clamp_min(MIN_AMAX) / torch.finfo(dtype).max


def _quantize(tensor: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in units, as 8 bits.

    Nothing is clipped: a largest value that rounding left a little above the format's is
    still nearer to that than to anything beyond, and what is not finite has to show.
    """
    return (tensor.float() * scale.reciprocal()).to(dtype)


def _scaled_mm(
    a_MK: Tensor,
    b_NK: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    dtype: torch.dtype,
    fast_accum: bool = False,
) -> Tensor:
    """a @ bᵀ. Tensor cores read 8-bit numbers along K on both sides, so K lies together.

    Each side is given the geometric mean of the two units. In whatever order a kernel multiplies by
    them, nothing on the way is then beyond what a product of the unrounded numbers holds too: a
    gradient's unit may be 1e-34 beside one of 1e+34, by which alone the sum would overflow.
    """
    unit = a_scale.sqrt() * b_scale.sqrt()
    return torch._scaled_mm(
        a_MK.contiguous(),
        b_NK.contiguous().t(),
        scale_a=unit,
        scale_b=unit,
        out_dtype=dtype,
        use_fast_accum=fast_accum,
    )


def fp8_unsupported_reason(device: torch.device) -> str | None:
    """Why FP8 products cannot run on this device, in a sentence; None where they can.

    A CPU computes them too, but several times slower than bf16: good for tests only.
    """
    if device.type != "cuda":
        return f"FP8 (train.precision) needs a GPU with FP8 tensor cores; this runs on {device}."
    name = torch.cuda.get_device_name(device)
    if torch.version.hip:
        chip = torch.cuda.get_device_properties(device).gcnArchName
        if chip.startswith(("gfx95", "gfx12")):
            return None
        return f"FP8 (train.precision) needs e4m3fn as on an MI350; {name} ({chip}) lacks it."
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 9):
        return None
    return (
        f"FP8 (train.precision) needs compute capability 8.9 (L4, L40S, RTX 40, H100) or later; "
        f"{name} has {'.'.join(map(str, capability))}."
    )
