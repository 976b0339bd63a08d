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

from gnano.model.blocks import Linear
from gnano.model.gpt import GPT

PRECISE, WIDE = torch.float8_e4m3fn, torch.float8_e5m2
TILE = 16  # the kernels want every dimension to be a multiple of it
SMALLEST = 2.0**-100  # a tensor whose values are all below it has this for its largest
# I·O / (I + O) from which rounding costs less than FP8 saves. Saved is half of 3 products,
# 3·I·O FLOPs a token at some 700 TFLOP/s; rounding reads and writes some 7 bytes for each of
# the I + O values at some 4 TB/s (an H100 or H200): 7/3 · 700 / 4 = 408
WORTH = 400


def fp8_linear(x: Tensor, weight_OI: Tensor) -> Tensor:
    """x @ weightᵀ with its three products in FP8; from [..., I] to [..., O].

    The result has x's dtype, each gradient that of its tensor. What is not finite in x, the
    weight or a gradient makes all of a result NaN. I and O must be multiples of 16; the number
    of tokens need not be.
    """
    x_NI = x.reshape(-1, x.shape[-1])
    tokens = len(x_NI)
    if tokens % TILE:  # rows of zeros change no unit and no product
        x_NI = F.pad(x_NI, (0, 0, 0, -tokens % TILE))
    y_NO: Tensor = _Fp8Linear.apply(x_NI, weight_OI)  # type: ignore[no-untyped-call]
    return y_NO[:tokens].view(*x.shape[:-1], -1)


def use_fp8(model: GPT, worth: float = WORTH) -> list[str]:
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
    names = [name for name, layer in linears.items() if _suits(layer, worth)]
    if not names:
        raise ValueError(
            f"No layer of this model gains from FP8 (train.precision): inputs × outputs / "
            f"(inputs + outputs) has to be at least {worth:g}, and both a multiple of {TILE}; here "
            f'it is {max(map(_gain, linears.values())):.0f} at most. Choose "bf16".'
        )
    for name in names:
        linears[name].__class__ = Fp8Linear
    return names


class Fp8Linear(Linear):
    """A `Linear` that trains in FP8; its parameter and its name are those of any other."""

    def forward(self, x: Tensor) -> Tensor:
        return fp8_linear(x, self.weight) if self.training else super().forward(x)


def _suits(layer: Linear, worth: float) -> bool:
    return not any(size % TILE for size in layer.weight.shape) and _gain(layer) >= worth


def _gain(layer: Linear) -> float:
    """Multiplications for each value rounded."""
    outputs, inputs = layer.weight.shape
    return inputs * outputs / (inputs + outputs)


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        x_unit, w_unit = _unit(x_NI, PRECISE), _unit(weight_OI, PRECISE)
        x8_NI, w8_OI = _rounded(x_NI, x_unit, PRECISE), _rounded(weight_OI, w_unit, PRECISE)
        ctx.save_for_backward(x8_NI, x_unit, weight_OI, w_unit)
        # fast: fewer bits between the partial sums, which gradients cannot do without
        return _product(x8_NI, w8_OI, x_unit, w_unit, x_NI.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor, Tensor]:
        x8_NI, x_unit, weight_OI, w_unit = ctx.saved_tensors
        grad_unit = _unit(grad_NO, WIDE)
        grad8_NO = _rounded(grad_NO, grad_unit, WIDE)
        w8_OI = _rounded(weight_OI, w_unit, PRECISE)
        grad_x_NI = _product(grad8_NO, w8_OI.t(), grad_unit, w_unit, grad_NO.dtype)
        grad_w_OI = _product(grad8_NO.t(), x8_NI.t(), grad_unit, x_unit, weight_OI.dtype)
        return grad_x_NI, grad_w_OI


def _unit(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """What 1 in 8 bits stands for, so that the tensor's largest value is the format's."""
    return tensor.abs().amax().float().clamp_min(SMALLEST) / torch.finfo(dtype).max


def _rounded(tensor: Tensor, unit: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in units, as 8 bits.

    Nothing is clipped: a largest value that rounding left a little above the format's is
    still nearer to that than to anything beyond, and what is not finite has to show.
    """
    return (tensor.float() * unit.reciprocal()).to(dtype)


def _product(
    a_MK: Tensor,
    b_NK: Tensor,
    a_unit: Tensor,
    b_unit: Tensor,
    dtype: torch.dtype,
    fast: bool = False,
) -> Tensor:
    """a @ bᵀ. Tensor cores read 8-bit numbers along K on both sides, so K lies together.

    Each side is given the geometric mean of the two units. In whatever order a kernel multiplies by
    them, nothing on the way is then beyond what a product of the unrounded numbers holds too: a
    gradient's unit may be 1e-34 beside one of 1e+34, by which alone the sum would overflow.
    """
    unit = a_unit.sqrt() * b_unit.sqrt()
    return torch._scaled_mm(
        a_MK.contiguous(),
        b_NK.contiguous().t(),
        scale_a=unit,
        scale_b=unit,
        out_dtype=dtype,
        use_fast_accum=fast,
    )


def fp8_lacking(device: torch.device) -> str | None:
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
