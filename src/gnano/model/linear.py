"""Linear layers: with or without bias, and the output layer, which may be the embedding."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.model.fused_cross_entropy import LossFn, head_loss

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
        return F.linear(x, self.weight.to(x.dtype), bias)


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
