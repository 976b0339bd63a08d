"""The optimizer of a model: AdamW, or Muon for the matrices of the layers and AdamW for the rest.

    kind =               "adamw"                   "muon"
    embedding, head      AdamW                     AdamW, each with its own learning rate
    norms                AdamW, no decay           AdamW, no decay
    layers' matrices     AdamW                     Muon

Both take two tensors that never leave the device: the divisor of the gradients, and whether the
step is skipped. Clipping, loss scaling and a gradient that is not finite therefore never make the
host wait for the device.
"""

from collections.abc import Mapping

from torch import Tensor

from gnano.config.train_config import OptimizerConfig
from gnano.model.transformer import GPT
from gnano.train.distributed.parallel import to_local
from gnano.train.optim.adamw import AdamW
from gnano.train.optim.muon import Muon


class Optimizer:
    """The optimizer; create it after the model is on its device and, with FSDP2, sharded."""

    def __init__(self, model: GPT, config: OptimizerConfig) -> None:
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        matrices = {
            name: parameter
            for name, parameter in self.parameters.items()
            if config.kind == "muon" and name.startswith("model.layers.") and parameter.dim() == 2
        }
        others = {name: p for name, p in self.parameters.items() if name not in matrices}
        self.adamw = AdamW(others, config)
        self.muon = Muon(matrices, config, model)

    def step(
        self,
        lr: float,
        remaining: float = 1.0,
        grad_divisor: Tensor | None = None,
        skip_step: Tensor | None = None,
    ) -> None:
        """Update the weights by their gradients, which may be overwritten.

        `remaining` is the share of the run still to come, 1 to 0: Muon's weight decay fades with
        it. `grad_divisor` (fp32, no dimensions, on the device) divides the gradients; if
        `skip_step` (likewise) is 1.0, the step changes no weight, no moment and no count.
        """
        self.adamw.step(lr, grad_divisor, skip_step)
        self.muon.step(lr, remaining, grad_divisor, skip_step)

    def zero_grad(self) -> None:
        """Release the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as `parameter/kind`: the tensors themselves, sharded as the weights."""
        return {**self.adamw.state_dict(), **self.muon.state_dict()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a state that is sharded like that of `state_dict()`."""
        self.check_state_dict(tensors)
        for name, tensor in self.state_dict().items():
            to_local(tensor).copy_(to_local(tensors[name]))

    def check_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ValueError for the state of another optimizer or another model."""
        own = self.state_dict()
        for name in sorted(own.keys() ^ tensors.keys()):
            raise ValueError(
                f"The optimizer state {'lacks' if name in own else 'has an unknown'} {name!r}: it "
                f"was saved with another model or another train.optimizer.kind."
            )
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(
                    f"The optimizer state has {name!r} with shape {list(tensors[name].shape)}, but "
                    f"the model needs {list(tensor.shape)}."
                )
