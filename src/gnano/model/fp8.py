"""Linear layers that train in FP8 (8-bit floating point), with one dynamic scale per tensor.

The format e4m3 has three mantissa bits and a range of ±448, e5m2 two bits and ±57,344. A tensor
is divided by its scale, so that its largest value is the format's, and rounded; the product of
both scales multiplies the result:

    x ──/ scale──▶ 8 bits ─┐
                           ├─ product, summed in fp32 ──× both scales──▶ y in x's dtype
    w ──/ scale──▶ 8 bits ─┘

    y  = x wᵀ      e4m3 × e4m3
    ∂x = ∂y w      e5m2 × e4m3      gradients need range more than precision
    ∂w = ∂yᵀ x     e5m2 × e4m3      in the parameter's dtype: fp32 master weights lose nothing

Backward stores x in 8 bits, half of bf16, and no copy of the weight, which it quantizes again with
the same scale. Scales are tensors without dimensions, so nothing waits for the device.

Formats and their use: Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433. One scale per
tensor, computed each time, is torchao's "tensorwise" recipe.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.model.linear import Linear
from gnano.model.transformer import GPT

FORWARD_DTYPE, GRAD_DTYPE = torch.float8_e4m3fn, torch.float8_e5m2
DIM_MULTIPLE = 16  # required of every dimension by the kernels
MIN_AMAX = 2.0**-100  # lower bound of a tensor's largest value
# I·O / (I + O) above which FP8 saves more than quantization costs. It saves half of 3 products,
# 3·I·O FLOPs per token at some 700 TFLOP/s; quantization reads and writes some 7 bytes for each of
# the I + O values at some 4 TB/s (an H100 or H200): 7/3 · 700 / 4 = 408
MIN_INTENSITY = 400


def fp8_linear(x: Tensor, *weights_OI: Tensor) -> Tensor:
    """Return x @ Wᵀ, [..., I] to [..., O], with its three products in FP8.

    W is all weights, one below the other. The result has x's dtype, each gradient that of its
    tensor. A value that is not finite makes the complete result NaN. I and O must be multiples of
    16; the number of tokens need not be.
    """
    x_NI = x.reshape(-1, x.shape[-1])
    tokens = len(x_NI)
    if tokens % DIM_MULTIPLE:  # rows of zeros change no scale and no product
        x_NI = F.pad(x_NI, (0, 0, 0, -tokens % DIM_MULTIPLE))
    y_NO: Tensor = _Fp8LinearFunction.apply(x_NI, *weights_OI)  # type: ignore[no-untyped-call]
    return y_NO[:tokens].view(*x.shape[:-1], -1)


def convert_to_fp8(model: GPT, min_intensity: float = MIN_INTENSITY) -> list[str]:
    """Convert the large layers of the blocks to train in FP8, in place; return their names.

    The head (its errors enter the loss directly), the embedding, norms and attention scores do
    not change, and neither do layers that quantization would slow down, such as the key and value
    projections of all presets. FP8 is used only in training mode: held-out loss is measured on
    the weights as they will be served.

    Raises ValueError if no layer is large enough.
    """
    names = []
    highest = 0.0
    for name, layer in model.model.layers.named_modules(prefix="model.layers"):
        if isinstance(layer, Linear):
            outputs, inputs = layer.weight.shape
            intensity = inputs * outputs / (inputs + outputs)  # multiplications per quantized value
            highest = max(highest, intensity)
            is_aligned = inputs % DIM_MULTIPLE == outputs % DIM_MULTIPLE == 0
            if is_aligned and intensity >= min_intensity:
                layer.__class__ = Fp8Linear
                names.append(name)
    if not names:
        raise ValueError(
            f"No layer of this model gains from FP8 (train.precision): inputs × outputs / "
            f"(inputs + outputs) must be at least {min_intensity:g}, and both a multiple of "
            f'{DIM_MULTIPLE}; here it is at most {highest:.0f}. Choose "bf16".'
        )
    return names


class Fp8Linear(Linear):
    """A `Linear` that trains in FP8, with the same parameter."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ + bias."""
        if not self.training:
            return super().forward(x)
        return self.multiply(x, [self.weight], self.bias)

    def is_mixed(self, x: Tensor) -> bool:
        """Whether `multiply` is used."""
        return self.training

    @staticmethod
    def multiply(x: Tensor, weights_OI: Sequence[Tensor], bias_O: Tensor | None) -> Tensor:
        """Return x @ Wᵀ + bias in FP8; W is all weights, one below the other."""
        y = fp8_linear(x, *weights_OI)
        return y if bias_O is None else y + bias_O.to(y.dtype)


class _Fp8LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, *weights_OI: Tensor) -> Tensor:
        x8_NI, x_scale = _quantize(x_NI, FORWARD_DTYPE)
        w8_OI, w_scale = _quantize(torch.cat(weights_OI), FORWARD_DTYPE)
        ctx.save_for_backward(x8_NI, x_scale, w_scale, *weights_OI)
        # fast: partial sums with fewer bits, which gradients do not tolerate
        return _scaled_mm(x8_NI, w8_OI, x_scale, w_scale, x_NI.dtype, fast_accum=True)

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor, ...]:
        x8_NI, x_scale, w_scale, *weights_OI = ctx.saved_tensors
        grad8_NO, grad_scale = _quantize(grad_NO, GRAD_DTYPE)
        w8_OI, _ = _quantize(torch.cat(weights_OI), FORWARD_DTYPE, w_scale)
        grad_x_NI = _scaled_mm(grad8_NO, w8_OI.t(), grad_scale, w_scale, grad_NO.dtype)
        dtype, sizes = weights_OI[0].dtype, [len(weight) for weight in weights_OI]
        grad_w_OI = _scaled_mm(grad8_NO.t(), x8_NI.t(), grad_scale, x_scale, dtype)
        return grad_x_NI, *torch.split(grad_w_OI, sizes)


def _quantize(
    tensor: Tensor, dtype: torch.dtype, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the tensor in 8 bits, and its scale: that of its largest value if none is given.

    Nothing is clipped: a largest value slightly above the format's, due to rounding, is still
    rounded to that, and values that are not finite must remain visible.
    """
    if scale is None:
        scale = tensor.abs().amax().float().clamp_min(MIN_AMAX) / torch.finfo(dtype).max
    return (tensor.float() * scale.reciprocal()).to(dtype), scale


def _scaled_mm(
    a_MK: Tensor,
    b_NK: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    dtype: torch.dtype,
    fast_accum: bool = False,
) -> Tensor:
    """Return a @ bᵀ; tensor cores need K contiguous on both sides.

    Each side gets the geometric mean of both scales. A gradient's scale may be 1e-34 and the other
    1e+34, which would overflow the sum; with the mean no intermediate value exceeds those of
    the unquantized product, whatever the kernel's order of multiplication.
    """
    scale = a_scale.sqrt() * b_scale.sqrt()
    return torch._scaled_mm(
        a_MK.contiguous(),
        b_NK.contiguous().t(),
        scale_a=scale,
        scale_b=scale,
        out_dtype=dtype,
        use_fast_accum=fast_accum,
    )


def fp8_unsupported_reason(device: torch.device) -> str | None:
    """Return why FP8 products cannot run on this device, as a sentence; None if they can.

    A CPU computes them too, but several times slower than bf16: for tests only.
    """
    if device.type != "cuda":
        return f"FP8 (train.precision) needs a GPU with FP8 tensor cores; this runs on {device}."
    name = torch.cuda.get_device_name(device)
    if torch.version.hip:
        chip = torch.cuda.get_device_properties(device).gcnArchName
        if chip.startswith(("gfx95", "gfx12")):
            return None
        return (
            f"FP8 (train.precision) needs e4m3fn, as on an MI350; {name} ({chip}) does not have it."
        )
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 9):
        return None
    return (
        f"FP8 (train.precision) needs compute capability 8.9 (L4, L40S, RTX 40, H100) or later; "
        f"{name} has {'.'.join(map(str, capability))}."
    )
