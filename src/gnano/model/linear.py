"""Linear layers: with or without bias, and the output layer, which may be the embedding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.model.fused_cross_entropy import LossFn, head_loss, multiply_into

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
        if self.is_mixed(x):
            return self.multiply(x, [self.weight], self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)

    def is_mixed(self, x: Tensor) -> bool:
        """Whether a wider weight is trained, on a GPU: `multiply` then keeps its gradient wide."""
        is_narrower = x.element_size() < self.weight.element_size()
        return is_narrower and x.device.type == "cuda" and torch.is_grad_enabled()

    @staticmethod
    def multiply(x: Tensor, weights_OI: Sequence[Tensor], bias_O: Tensor | None) -> Tensor:
        """Return x @ Wᵀ + bias for `is_mixed`; W is all weights, one below the other."""
        y: Tensor = _MixedLinear.apply(x, *weights_OI)  # type: ignore[no-untyped-call]
        return y if bias_O is None else y + bias_O.to(y.dtype)


def apply_together(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Return the outputs of layers with the same input, from one product where that is faster.

    A GPU is idle in part during a small product; a CPU is not.
    """
    kind = type(layers[0])
    linear = [layer for layer in layers if type(layer) is kind and isinstance(layer, Linear)]
    if len(linear) < len(layers) or not all(layer.is_mixed(x) for layer in linear):
        return tuple(layer(x) for layer in layers)
    biases: list[Tensor] = [layer.bias for layer in linear if layer.bias is not None]
    weights = [layer.weight for layer in linear]
    y = linear[0].multiply(x, weights, torch.cat(biases) if biases else None)
    outputs: tuple[Tensor, ...] = torch.split(y, [layer.out_features for layer in linear], dim=-1)
    return outputs


class _MixedLinear(torch.autograd.Function):
    """x @ Wᵀ in the dtype of x; the gradient of a wider weight leaves its product in that.

    Autograd would round it to the dtype of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights_OI: Tensor) -> Tensor:
        cast_OI = torch.cat([weight.to(x.dtype) for weight in weights_OI])
        ctx.save_for_backward(x, cast_OI)
        ctx.dtype, ctx.sizes = weights_OI[0].dtype, [len(weight) for weight in weights_OI]
        return F.linear(x, cast_OI)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, cast_OI = ctx.saved_tensors
        to_x = grad @ cast_OI if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return to_x, *[None] * len(ctx.sizes)
        grad_ON, x_NI = grad.flatten(0, -2).mT, x.flatten(0, -2)
        return to_x, *torch.split(multiply_into(grad_ON, x_NI, ctx.dtype), ctx.sizes)


class LMHead(Linear):
    """The output layer; its weight is padded to full tiles, but not in the state dict."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [..., V] without padding."""
        return super().forward(x)[..., : self.out_features]

    def loss(
        self, x_ND: Tensor, targets_BT: Tensor, loss_fn: LossFn | None, use_compiled: bool
    ) -> Tensor:
        """Return the loss of `GPT.loss`; as a call of this module, whose weight FSDP gathers."""
        return head_loss(x_ND, self.weight, targets_BT, self.out_features, loss_fn, use_compiled)

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

    def loss(
        self, x_ND: Tensor, targets_BT: Tensor, loss_fn: LossFn | None, use_compiled: bool
    ) -> Tensor:
        """Return the loss of `GPT.loss`."""
        return head_loss(x_ND, self.weight, targets_BT, self.out_features, loss_fn, use_compiled)
