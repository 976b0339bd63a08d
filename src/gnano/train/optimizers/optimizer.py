"""How does a gradient become a step? AdamW, or Muon for the matrices and AdamW for the rest.

                     AdamW                     Muon
    embedding, head  ─┐                        AdamW, each with its own learning rate
    norms            ─┼─ AdamW                 AdamW, not decayed
    layers' matrices ─┘                        Muon

Both honour two tensors that never leave the device: what the gradients are divided by, and
whether the step is to be skipped. So clipping, loss scaling and a gradient that is not finite
cost no wait for the host.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from gnano.model import GPT


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    kind: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of the layers
    beta1: float = 0.9  # AdamW: memory of the gradient's mean
    beta2: float = 0.95  # AdamW: memory of its square
    eps: float = 1e-8  # AdamW: added to the root of the square
    weight_decay: float = 0.1  # shrink of the matrices a step, times the learning rate
    embedding_lr: float = 1.0  # learning rate of the embedding, in multiples of the schedule's
    head_lr: float = 1.0  # the same for the head
    momentum: float = 0.95  # Muon: memory of the gradient's mean
    polar_steps: int = 5  # Muon: iterations towards the nearest orthogonal matrix, 1 to 8

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"train.optimizer.{name} is {getattr(self, name)}; it must be in [0, 1)."
                )
        if self.weight_decay < 0 or self.eps <= 0:
            raise ValueError("train.optimizer needs weight_decay ≥ 0 and eps > 0.")
        for name in ("embedding_lr", "head_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"train.optimizer.{name} is {getattr(self, name)}; it must be more than 0."
                )
        if not 1 <= self.polar_steps <= 8:
            raise ValueError(
                f"train.optimizer.polar_steps is {self.polar_steps}; it must be 1 to 8."
            )


class Optimizer:
    """Made when the model is on its device and, if it is to be, sharded by FSDP2."""

    def __init__(self, model: "GPT", config: OptimizerConfig) -> None:
        from gnano.train.optimizers.adamw import AdamW
        from gnano.train.optimizers.muon import Muon

        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        matrices = {
            name: parameter
            for name, parameter in self.parameters.items()
            if config.kind == "muon" and name.startswith("model.layers.") and parameter.dim() == 2
        }
        rest = {name: p for name, p in self.parameters.items() if name not in matrices}
        self.adamw = AdamW(rest, config)
        self.muon = Muon(matrices, config, model)

    def step(
        self,
        lr: float,
        left: float = 1.0,
        divisor: "Tensor | None" = None,
        skip: "Tensor | None" = None,
    ) -> None:
        """Change the weights by their gradients, which it may overwrite.

        `left` is the share of the run still to come, 1 to 0: Muon's decay fades with it.
        `divisor` (fp32, no dimensions, on the device) divides the gradients; where `skip`
        (likewise) is 1.0 the step changes nothing: no weight, no moment, no count.
        """
        self.adamw.step(lr, divisor, skip)
        self.muon.step(lr, left, divisor, skip)

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def tensors(self) -> "dict[str, Tensor]":
        """All it remembers, as `parameter/what`: the tensors themselves, laid out like weights."""
        return {**self.adamw.tensors(), **self.muon.tensors()}

    def load(self, tensors: "Mapping[str, Tensor]") -> None:
        """Remember these instead; they are laid out as `tensors()` gives them."""
        from gnano.train.ranks.parallel import local

        self.check(tensors)
        for name, tensor in self.tensors().items():
            local(tensor).copy_(local(tensors[name]))

    def check(self, tensors: "Mapping[str, Tensor]") -> None:
        """Raises ValueError where these are of another optimizer or another model."""
        own = self.tensors()
        for name in sorted(own.keys() ^ tensors.keys()):
            raise ValueError(
                f"The optimizer's state {'lacks' if name in own else 'has an unknown'} {name!r}: "
                f"it was saved with another model or another train.optimizer.kind."
            )
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(
                    f"The optimizer's state has {name!r} in the shape "
                    f"{list(tensors[name].shape)}, but the model's is {list(tensor.shape)}."
                )
