"""The matrices of a model in the forms that inference is fast with: fused, repacked, quantized.

    q, k, v ─▶ one matrix       gate, up ─▶ one matrix       queries and keys rotated together

Fusion leaves 4 of a block's 7 products, since each call counts in a decoding step of one text.
The fastest CPU product depends on the number of rows:

    bf16, one row           PyTorch's product with a vector, close to memory bandwidth
    one row, compiled       `gemv`: a few sums alongside each other. A library product reads the
                            matrix at two thirds of the bandwidth (half in 8 bits), because it
                            works on one sum at a time; four distant rows keep four streams going
    several rows, or fp32   oneDNN with a matrix in its own layout; one row of bf16 is then
                            slower, so an engine repacks when several texts are first requested

A decoding step for one text reads each weight once, so fewer bits take less time. Quantization
keeps each matrix W [O, I] as small integers with scales, and everything else unchanged:

    int8   a scale per output                 w ≈ scale · q                q in −127 … 127
    int4   a scale and a zero per 32 inputs   w ≈ scale · (q − 8) + zero   q in 0 … 15

On a CPU, PyTorch's own kernels read the integers and multiply in the dtype of the activations.
Elsewhere, and in 8 bits for many rows, where multiplication dominates, the matrix is first
converted back.

Each matrix is kept once, in a form that cannot be trained or saved.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.config.inference_config import Quantization
from gnano.model.linear import Linear, TiedHead
from gnano.model.transformer import GPT, Block

GEMV_STREAMS = 4  # rows of a matrix that `gemv` reads at a time; eight are slower
GROUP_SIZE = 32  # inputs that share a scale and a zero in 4 bits
OUTPUT_MULTIPLE = 16  # required by the 4-bit kernel
MAX_INT8_MATMUL_ROWS = 48  # rows up to which the 8-bit kernel is the faster way


def is_gemv_faster(x_NI: Tensor, w_OI: Tensor) -> bool:
    """Return whether `gemv` is fastest: one compiled CPU row, no more inputs than outputs."""
    (N, inputs), outputs = x_NI.shape, len(w_OI)
    return (
        torch.compiler.is_compiling()
        and x_NI.device.type == "cpu"
        and N == 1
        and inputs <= outputs
        and outputs % GEMV_STREAMS == 0
    )


def gemv(x_1I: Tensor, w_OI: Tensor) -> Tensor:
    """Return x @ Wᵀ, [1, O], in fp32, as sums over `GEMV_STREAMS` parts of the matrix."""
    parts = w_OI.view(GEMV_STREAMS, -1, w_OI.shape[1]).float().unbind()
    return torch.cat([(part * x_1I.float()).sum(-1) for part in parts])[None]


class FusedLinear(Linear):
    """The stacked matrices of several linear layers, or the padded one of a head."""

    def __init__(self, *parts: Linear | TiedHead) -> None:
        with torch.device("meta"):
            super().__init__(parts[0].in_features, sum(part.out_features for part in parts))
        weight = parts[0].weight if len(parts) == 1 else torch.cat([p.weight for p in parts])
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases).detach(), False) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ + bias without padding."""
        x_NI = x.reshape(-1, x.shape[-1])
        if is_gemv_faster(x_NI, self.weight):
            y_NO = gemv(x_NI, self.weight).to(x.dtype)
        else:
            y_NO = F.linear(x_NI, self.weight.to(x.dtype))
        if self.bias is not None:
            y_NO = y_NO + self.bias.to(x.dtype)
        return y_NO.view(*x.shape[:-1], len(self.weight))[..., : self.out_features]


class OneDnnLinear(nn.Module):
    """A linear layer with its weight in oneDNN's layout."""

    packed_weight: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.out_features, self.bias = linear.out_features, linear.bias
        packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self.register_buffer("packed_weight", packed_weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ + bias without padding."""
        x_NI, packed = x.reshape(-1, x.shape[-1]).contiguous(), self.packed_weight
        y_NO: Tensor
        if torch.compiler.is_compiling():
            y_NO = _packed_matmul(x_NI, packed)
        else:
            y_NO = torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, "none", [], "")
        if self.bias is not None:
            y_NO = y_NO + self.bias.to(x.dtype)
        return y_NO.view(*x.shape[:-1], y_NO.shape[1])[..., : self.out_features]


# the compiler expects constant weights from the raw operator, which it also generates
@torch.library.custom_op("gnano::packed_product", mutates_args=())
def _packed_matmul(x_NI: Tensor, packed_OI: Tensor) -> Tensor:
    y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, packed_OI, None, "none", [], "")
    return y_NO


@_packed_matmul.register_fake
def _(x_NI: Tensor, packed_OI: Tensor) -> Tensor:
    return x_NI.new_empty(len(x_NI), len(packed_OI))


class QuantizedLinear(nn.Module, ABC):
    """A linear layer whose weight is stored as small integers."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    @abstractmethod
    def matmul(self, x_NI: Tensor) -> Tensor:
        """Return x @ Wᵀ, [N, O]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ + bias without padding."""
        y_NO = self.matmul(x.reshape(-1, self.in_features).contiguous())
        if self.bias is not None:
            y_NO = y_NO + self.bias.to(x.dtype)
        return y_NO.view(*x.shape[:-1], y_NO.shape[1])[..., : self.out_features]


class Int8Linear(QuantizedLinear):
    """A linear layer in 8 bits, with one scale per output."""

    q_OI: Tensor
    scale_O: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        scale_O1 = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        # round the scale first, so that the integers compensate for it
        scale_O1 = scale_O1.to(weight.dtype).float()
        self.register_buffer("q_OI", (weight / scale_O1).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale_O", scale_O1[:, 0].to(weight.dtype))

    def matmul(self, x_NI: Tensor) -> Tensor:
        """Return x @ Wᵀ, [N, O]."""
        if is_gemv_faster(x_NI, self.q_OI):
            return (gemv(x_NI, self.q_OI) * self.scale_O).to(x_NI.dtype)
        if x_NI.device.type == "cpu" and len(x_NI) <= MAX_INT8_MATMUL_ROWS:
            y_NO: Tensor = torch.ops.aten._weight_int8pack_mm(x_NI, self.q_OI, self.scale_O)
            return y_NO
        return F.linear(x_NI, self.q_OI.to(x_NI.dtype)) * self.scale_O


class Int4Linear(QuantizedLinear):
    """A linear layer in 4 bits, with a scale and a zero per group of inputs."""

    # on a CPU in the layout of its kernel, else a byte has one of each half of a group
    q_OI: Tensor
    scales_zeros_GO2: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        weight_OGW = weight.float().view(len(weight), -1, GROUP_SIZE)
        low, high = weight_OGW.aminmax(dim=2, keepdim=True)
        scale = ((high - low) / 15).clamp_min(1e-12).to(weight.dtype).float()
        zero = (low + 8 * scale).to(weight.dtype).float()
        q_OI = ((weight_OGW - zero) / scale + 8).round().clamp(0, 15).flatten(1).int()
        scales_zeros = torch.cat([scale, zero], dim=2).transpose(0, 1)
        self.register_buffer("scales_zeros_GO2", scales_zeros.to(weight.dtype).contiguous())
        self.is_prepacked = weight.device.type == "cpu"
        if self.is_prepacked:
            q_OI = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q_OI, 1)
        else:
            first_OGH, second_OGH = q_OI.view(len(q_OI), -1, GROUP_SIZE).chunk(2, dim=2)
            q_OI = (first_OGH << 4 | second_OGH).flatten(1).to(torch.uint8)
        self.register_buffer("q_OI", q_OI)

    def matmul(self, x_NI: Tensor) -> Tensor:
        """Return x @ Wᵀ, [N, O]."""
        if self.is_prepacked:
            y_NO: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x_NI, self.q_OI, GROUP_SIZE, self.scales_zeros_GO2
            )
            return y_NO
        return F.linear(x_NI, dequantize_int4(self.q_OI, self.scales_zeros_GO2).to(x_NI.dtype))


def dequantize_int4(q_OI: Tensor, scales_zeros_GO2: Tensor) -> Tensor:
    """Return the matrix [O, I], in the dtype of the scales, of two integers per byte."""
    q_OGH = q_OI.view(len(q_OI), -1, GROUP_SIZE // 2)
    q_OGW = torch.cat([q_OGH >> 4, q_OGH & 15], dim=-1).to(scales_zeros_GO2.dtype) - 8
    scale_OG1, zero_OG1 = scales_zeros_GO2.transpose(0, 1).chunk(2, dim=2)
    return (q_OGW * scale_OG1 + zero_OG1).flatten(1)


def fuse_projections(model: GPT) -> GPT:
    """Fuse the projections of each block in place; the model can no longer be trained or saved."""
    for block in model.model.layers:
        assert isinstance(block, Block)
        attention, mlp = block.self_attn, block.mlp
        attention.qkv_proj = FusedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        attention.o_proj = FusedLinear(attention.o_proj)
        mlp.gate_up_proj = FusedLinear(mlp.gate_proj, mlp.up_proj)
        mlp.down_proj = FusedLinear(mlp.down_proj)
        del attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj
    setattr(model, "lm_head", FusedLinear(model.lm_head))  # noqa: B010 it is declared as LMHead
    return model.eval()


def _replace_linears(model: GPT, layer_class: Callable[[Linear], nn.Module]) -> GPT:
    """Replace each linear layer of blocks and head in place, one after another."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear):
                setattr(parent, name, layer_class(layer))
    return model


def prepack_onednn(model: GPT) -> GPT:
    """Repack the matrices of blocks and head in place, if supported and not yet done."""
    head = model.lm_head
    if not isinstance(head, Linear) or head.weight.device.type != "cpu":
        return model
    is_supported: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if head.weight.dtype == torch.bfloat16:
        is_supported = is_supported and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    elif head.weight.dtype != torch.float32:
        is_supported = False
    return _replace_linears(model, OneDnnLinear) if is_supported else model


def quantize_model(model: GPT, quant: Quantization) -> GPT:
    """Quantize the matrices of blocks and head in place.

    Raises ValueError for a matrix whose size does not fit the groups.
    """
    kinds = {"int8": Int8Linear, "int4": Int4Linear}
    if quant not in kinds:
        raise ValueError(f"quant is {quant!r}; it must be {' or '.join(kinds)}.")
    for name, layer in model.named_modules():
        if isinstance(layer, Linear):
            outputs, inputs = layer.weight.shape
            if inputs % GROUP_SIZE or outputs % OUTPUT_MULTIPLE:
                raise ValueError(
                    f"The matrix {name} is {outputs} × {inputs}, and {quant} needs multiples "
                    f"of {OUTPUT_MULTIPLE} × {GROUP_SIZE}: load this model without --quant."
                )
    return _replace_linears(model, kinds[quant])


@contextmanager
def without_onednn_for_one_row(model: GPT) -> Iterator[None]:
    """Disable oneDNN in the block, for products of one row with unpacked bf16 matrices.

    It is disabled for the entire process, so other products are slower meanwhile, but correct.
    """
    head = model.lm_head
    is_unpacked = isinstance(head, Linear) and head.weight.dtype == torch.bfloat16
    if not is_unpacked or head.weight.device.type != "cpu" or not torch._C._get_mkldnn_enabled():
        yield
        return
    # `backends.mkldnn.flags` would take longer than a small product
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)
