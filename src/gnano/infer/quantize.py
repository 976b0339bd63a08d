"""Weight-only quantization: the matrices in 8 or 4 bits, everything else unchanged.

A decoding step for one text reads each weight once, so its time is that of reading. Each matrix
W [O, I] is kept as small integers with scales:

    int8   a scale per output                 w ≈ scale · q                q in −127 … 127
    int4   a scale and a zero per 32 inputs   w ≈ scale · (q − 8) + zero   q in 0 … 15

On a CPU, PyTorch's own kernels read the integers and multiply in the dtype of the activations.
Elsewhere, and in 8 bits for many rows, where multiplication dominates, the matrix is first
converted back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.config.inference_config import Quantization
from gnano.infer.cpu_layers import FrozenLinear, gemv, replace_linears, should_use_gemv
from gnano.model.layers import Linear
from gnano.model.transformer import GPT

GROUP_SIZE = 32  # inputs that share a scale and a zero in 4 bits
OUTPUT_MULTIPLE = 16  # required by the 4-bit kernel
MAX_INT8_MATMUL_ROWS = 48  # rows up to which the 8-bit kernel is the faster way


class Int8Linear(FrozenLinear):
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
        if should_use_gemv(x_NI, self.out_features):
            return (gemv(x_NI, self.q_OI) * self.scale_O).to(x_NI.dtype)
        if x_NI.device.type == "cpu" and len(x_NI) <= MAX_INT8_MATMUL_ROWS:
            y_NO: Tensor = torch.ops.aten._weight_int8pack_mm(x_NI, self.q_OI, self.scale_O)
            return y_NO
        return F.linear(x_NI, self.q_OI.to(x_NI.dtype)) * self.scale_O


class Int4Linear(FrozenLinear):
    """A linear layer in 4 bits, with a scale and a zero per group of inputs."""

    q_OI: Tensor  # on a CPU in the layout of its kernel, else two per byte
    scales_zeros_GO2: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        weight_OGW = weight.float().view(self.out_features, -1, GROUP_SIZE)
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
            q_OI = (q_OI[:, ::2] << 4 | q_OI[:, 1::2]).to(torch.uint8)
        self.register_buffer("q_OI", q_OI)

    def matmul(self, x_NI: Tensor) -> Tensor:
        """Return x @ Wᵀ, [N, O]."""
        if self.is_prepacked:
            y_NO: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x_NI, self.q_OI, GROUP_SIZE, self.scales_zeros_GO2
            )
            return y_NO
        q_OI = torch.stack([self.q_OI >> 4, self.q_OI & 15], dim=-1).flatten(1)
        scale_OG1, zero_OG1 = self.scales_zeros_GO2.transpose(0, 1).chunk(2, dim=2)
        q_OGW = q_OI.view(self.out_features, -1, GROUP_SIZE).to(x_NI.dtype) - 8
        return F.linear(x_NI, (q_OGW * scale_OG1 + zero_OG1).flatten(1))


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
    return replace_linears(model, kinds[quant])
