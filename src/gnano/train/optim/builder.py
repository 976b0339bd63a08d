"""The optimizer of a model: AdamW, or Muon for the matrices and AdamW for the rest.

                     AdamW                     Muon
    embedding, head  ─┐                        AdamW, each with its own learning rate
    norms            ─┼─ AdamW                 AdamW, not decayed
    layers' matrices ─┘                        Muon

Both take two tensors that never leave the device: the divisor of the gradients, and whether the
step is skipped. So clipping, loss scaling and a gradient that is not finite cost no wait for the
host.
"""

from collections.abc import Mapping

from torch import Tensor

from gnano.config.train_config import OptimizerConfig
from gnano.model.transformer import GPT
from gnano.train.distributed.parallel import to_local
from gnano.train.optim.adamw import AdamW
from gnano.train.optim.muon import Muon


class Optimizer:
    """Create it when the model is on its device and, if at all, sharded by FSDP2."""

    def __init__(self, model: GPT, config: OptimizerConfig) -> None:
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
        remaining: float = 1.0,
        grad_divisor: Tensor | None = None,
        skip_step: Tensor | None = None,
    ) -> None:
        """Update the weights by their gradients, which it may overwrite.

        `left` is the share of the run still to come, 1 to 0: Muon's decay fades with it.
        `divisor` (fp32, no dimensions, on the device) divides the gradients; where `skip`
        (likewise) is 1.0 the step changes nothing: no weight, no moment, no count.
        """
        self.adamw.step(lr, grad_divisor, skip_step)
        self.muon.step(lr, remaining, grad_divisor, skip_step)

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return its state as `parameter/kind`: the tensors themselves, sharded as weights."""
        return {**self.adamw.state_dict(), **self.muon.state_dict()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a state that is sharded as `tensors()` returns it."""
        self.check_state_dict(tensors)
        for name, tensor in self.state_dict().items():
            to_local(tensor).copy_(to_local(tensors[name]))

    def check_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ValueError where these are of another optimizer or another model."""
        own = self.state_dict()
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
