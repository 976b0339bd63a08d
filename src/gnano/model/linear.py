"""Linear layers: with or without bias, and the output layer, which may be the embedding."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02


class Linear(nn.Module):
    """A linear layer; its weight may end with rows of padding, which are 0."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        init_std: float = INIT_STD,
        padding: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.zeros(out_features + padding, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        nn.init.normal_(self.weight[:out_features], std=init_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ Wᵀ + bias in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if x.device.type == "cuda" and x.dtype != self.weight.dtype and torch.is_grad_enabled():
            y: Tensor = _MixedLinear.apply(x, self.weight)  # type: ignore[no-untyped-call]
            return y if bias is None else y + bias
        return F.linear(x, self.weight.to(x.dtype), bias)


class _MixedLinear(torch.autograd.Function):
    """x @ Wᵀ in the dtype of x; the gradient of an fp32 weight leaves its product in fp32.

    Autograd would round it to the dtype of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        cast_OI = weight_OI.to(x.dtype)
        ctx.save_for_backward(x, cast_OI)
        ctx.weight_dtype = weight_OI.dtype
        return F.linear(x, cast_OI)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, cast_OI = ctx.saved_tensors
        to_x = grad @ cast_OI if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            grad_ON, x_NI = grad.flatten(0, -2).mT, x.flatten(0, -2)
            to_weight = multiply_into(grad_ON, x_NI, ctx.weight_dtype)
        return to_x, to_weight


def multiply_into(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a @ b in a wider dtype, on a CUDA GPU without rounding it to that of a and b."""
    if a.device.type == "cuda" and a.dtype != dtype:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


class LMHead(Linear):
    """The output layer; its weight is padded to full tiles, but not in the state dict."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [..., V] without padding."""
        return super().forward(x)[..., : self.out_features]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"][: self.out_features]


class TiedHead(nn.Module):
    """The output layer of a model whose head is its embedding; it has no weight of its own."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # no submodule: its tensor would have two names
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings
        self.bias = None

    @property
    def weight(self) -> Tensor:
        """The embedding's matrix [V, D]."""
        return self._embedding[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [..., V]."""
        return F.linear(x, self.weight.to(x.dtype))
