"""How is a model read in fewer bytes? Its matrices in 8 or 4 bits, everything else as it is.

One step for one text reads every weight once and multiplies it once, so its time is that of the
reading. Each matrix W [O, I] is kept as small numbers and what they stand for:

    int8   a unit for each output            w ≈ unit · q                q in −127 … 127
    int4   a unit and a zero for 32 inputs   w ≈ unit · (q − 8) + zero   q in 0 … 15

The products are PyTorch's own on a CPU, which reads the small numbers and multiplies in the
activations' dtype; elsewhere, and in 8 bits for many rows at once, where multiplying is what
takes time, the matrix is made whole first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.config.inference_config import Quantization
from gnano.infer.cpu_layers import FrozenLinear, gemv, replace_linears, should_use_gemv
from gnano.model.layers import Linear
from gnano.model.transformer import GPT

GROUP_SIZE = 32  # inputs that share a unit and a zero in 4 bits
OUTPUT_MULTIPLE = 16  # outputs that the 4-bit product takes at a time
MAX_INT8_MATMUL_ROWS = 48  # rows up to which the small numbers are multiplied as they are


class Int8Linear(FrozenLinear):
    q_OI: Tensor
    scale_O: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        scale_O1 = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        # the unit as it will be used: what rounding it does, the small numbers make up for
        scale_O1 = scale_O1.to(weight.dtype).float()
        self.register_buffer("q_OI", (weight / scale_O1).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale_O", scale_O1[:, 0].to(weight.dtype))

    def matmul(self, x_NI: Tensor) -> Tensor:
        if should_use_gemv(x_NI, self.out_features):
            return (gemv(x_NI, self.q_OI) * self.scale_O).to(x_NI.dtype)
        if x_NI.device.type == "cpu" and len(x_NI) <= MAX_INT8_MATMUL_ROWS:
            y_NO: Tensor = torch.ops.aten._weight_int8pack_mm(x_NI, self.q_OI, self.scale_O)
            return y_NO
        return F.linear(x_NI, self.q_OI.to(x_NI.dtype)) * self.scale_O


class Int4Linear(FrozenLinear):
    q_OI: Tensor  # on a CPU in the order that its product wants, else two to a byte
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
        if (
            self.is_prepacked
        ):  # for many rows too: what lies in this order, only its product can read
            y_NO: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x_NI, self.q_OI, GROUP_SIZE, self.scales_zeros_GO2
            )
            return y_NO
        q_OI = torch.stack([self.q_OI >> 4, self.q_OI & 15], dim=-1).flatten(1)
        scale_OG1, zero_OG1 = self.scales_zeros_GO2.transpose(0, 1).chunk(2, dim=2)
        q_OGW = q_OI.view(self.out_features, -1, GROUP_SIZE).to(x_NI.dtype) - 8
        return F.linear(x_NI, (q_OGW * scale_OG1 + zero_OG1).flatten(1))


def quantize_model(model: GPT, quant: Quantization) -> GPT:
    """Keep the matrices of blocks and head in so many bits, in place.

    Raises ValueError where a matrix is not made of whole groups.
    """
    kinds = {"int8": Int8Linear, "int4": Int4Linear}
    if quant not in kinds:
        raise ValueError(f"quant is {quant!r}; there are {', '.join(kinds)}.")
    for name, layer in model.named_modules():
        if isinstance(layer, Linear):
            outputs, inputs = layer.weight.shape
            if inputs % GROUP_SIZE or outputs % OUTPUT_MULTIPLE:
                raise ValueError(
                    f"The matrix {name} is {outputs} × {inputs}, and {quant} needs multiples "
                    f"of {OUTPUT_MULTIPLE} × {GROUP_SIZE}: load this model without --quant."
                )
    return replace_linears(model, kinds[quant])
