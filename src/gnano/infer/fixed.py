"""What takes a matrix's place in a model that only reads and writes texts? One laid out for that.

It computes what `Linear` does, or nearly, and keeps no second copy: the model can then not be
trained or saved.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from gnano.infer.lean import count_visible_features
from gnano.model.blocks import Linear
from gnano.model.gpt import GPT


class FrozenLinear(nn.Module, ABC):
    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.visible_features = count_visible_features(linear)

    @abstractmethod
    def matmul(self, x_NI: Tensor) -> Tensor:
        """x @ Wᵀ, [N, O]."""

    def forward(self, x: Tensor) -> Tensor:
        y_NO = self.matmul(x.reshape(-1, self.in_features).contiguous())
        return y_NO.view(*x.shape[:-1], self.out_features)[..., : self.visible_features]


def replace_linears(model: GPT, layer_class: Callable[[Linear], FrozenLinear]) -> GPT:
    """Put one in the place of each matrix of blocks and head, one after another."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear):
                setattr(parent, name, layer_class(layer))
    return model
