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
from typing import TYPE_CHECKING, Annotated, Literal

from gnano.utils.ranges import Range, check_ranges
from gnano.utils.unused import refuse_unused

if TYPE_CHECKING:
    from torch import Tensor

    from gnano.model import GPT

SHARE = Range(0, 1, below=True)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    kind: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of the layers
    beta1: Annotated[float, SHARE] = 0.9  # AdamW: memory of the gradient's mean
    beta2: Annotated[float, SHARE] = 0.95  # AdamW: memory of its square
    eps: Annotated[float, Range(0, 1, above=True)] = 1e-8  # AdamW: added to the root of the square
    # shrink of the matrices a step, times the learning rate
    weight_decay: Annotated[float, Range(0, 1_000)] = 0.1
    # learning rate of the embedding, in multiples of the schedule's
    embedding_lr: Annotated[float, Range(0, 1_000, above=True)] = 1.0
    head_lr: Annotated[float, Range(0, 1_000, above=True)] = 1.0  # the same for the head
    momentum: Annotated[float, SHARE] = 0.95  # Muon: memory of the gradient's mean
    # Muon: iterations towards the nearest orthogonal matrix
    polar_steps: Annotated[int, Range(1, 8)] = 5

    def __post_init__(self) -> None:
        check_ranges(self, "train.optimizer")
        if self.kind != "muon":
            names, why = ("momentum", "polar_steps"), f"train.optimizer.kind is {self.kind!r}"
            refuse_unused(self, "train.optimizer.", names, why)


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
