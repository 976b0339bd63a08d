"""The optimizer of a model, and the dynamic loss scale of fp16.

    kind =               "adamw"                   "muon"
    embedding, head      AdamW                     AdamW, each with its own learning rate
    norms                AdamW, no decay           AdamW, no decay
    layers' matrices     AdamW                     Muon (`muon.py`)

AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) is torch's fused kernel, applied
to the part of each tensor that this rank holds: it is elementwise, so shards need no communication.

A step takes two tensors that never leave the device: the divisor of the gradients, and whether it
is skipped. Clipping, loss scaling and a gradient that is not finite therefore never make the host
wait for the device.
"""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from gnano.config.train_config import OptimizerConfig
from gnano.model.transformer import GPT
from gnano.train.distributed.parallel import to_local
from gnano.train.optim.muon import Muon
from gnano.utils.platform_support import NO_FUSED_ADAMW_SCALING

INITIAL_LOSS_SCALE = 2.0**16
GROWTH_INTERVAL = 2_000  # good steps before a larger loss scale is tried


class Optimizer:
    """The optimizer; create it after the model is on its device and, with FSDP2, sharded."""

    def __init__(self, model: GPT, config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        # by `parameter/kind`, each sharded like its parameter
        self.state: dict[str, Tensor] = {}
        # names of AdamW's parameters by the factor of their learning rate and their decay
        self.groups: dict[tuple[float, float], list[str]] = defaultdict(list)
        matrices: dict[str, nn.Parameter] = {}
        for name, p in self.parameters.items():
            if config.kind == "muon" and name.startswith("model.layers.") and p.dim() == 2:
                matrices[name] = p
                continue
            self.state[f"{name}/exp_avg"] = torch.zeros_like(p.detach())
            self.state[f"{name}/exp_avg_sq"] = torch.zeros_like(p.detach())
            # fp32 and on the device: the kernel counts there, and does not count a skipped step
            self.state[f"{name}/step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            lr_scale = {
                "model.embed_tokens.weight": config.embedding_lr_scale,
                "lm_head.weight": config.head_lr_scale,
            }.get(name, 1.0)
            self.groups[lr_scale, config.weight_decay if p.dim() >= 2 else 0.0].append(name)
        self.muon = Muon(matrices, config, model) if matrices else None
        if self.muon:
            self.state |= {f"{name}/momentum": m for name, m in self.muon.momentum.items()}

    @torch.no_grad()
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
        if self.muon:
            self.muon.step(lr, remaining, grad_divisor, skip_step)
        names = [name for group in self.groups.values() for name in group]
        if {self.parameters[name].device.type for name in names} & NO_FUSED_ADAMW_SCALING:
            if skip_step is not None and skip_step:  # synchronizes with the device
                return
            if grad_divisor is not None:
                for name in names:
                    if (grad := self.parameters[name].grad) is not None:
                        grad /= grad_divisor
            grad_divisor = skip_step = None
        for (lr_scale, decay), group in self.groups.items():
            names = [name for name in group if self.parameters[name].grad is not None]
            adamw(
                [to_local(self.parameters[name]) for name in names],
                [to_local(self.parameters[name].grad) for name in names],  # type: ignore[arg-type]
                [to_local(self.state[f"{name}/exp_avg"]) for name in names],
                [to_local(self.state[f"{name}/exp_avg_sq"]) for name in names],
                [],
                [self.state[f"{name}/step"] for name in names],
                fused=True,
                grad_scale=grad_divisor,
                found_inf=skip_step,
                amsgrad=False,
                beta1=self.config.beta1,
                beta2=self.config.beta2,
                lr=lr * lr_scale,
                weight_decay=decay,
                eps=self.config.eps,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Release the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def check_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ValueError for the state of another optimizer or another model."""
        for name in sorted(self.state.keys() ^ tensors.keys()):
            raise ValueError(
                f"The optimizer state {'lacks' if name in self.state else 'has an unknown'} "
                f"{name!r}: it was saved with another model or another train.optimizer.kind."
            )
        for name, tensor in self.state.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(
                    f"The optimizer state has {name!r} with shape {list(tensors[name].shape)}, but "
                    f"the model needs {list(tensor.shape)}."
                )


class GradScaler:
    """Dynamic loss scaling for fp16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

    fp16 has no values below 6e-8; a loss times 65,536 has gradients times 65,536, which the
    optimizer divides out again. If one overflows, the step is skipped and the scale halved; after
    `GROWTH_INTERVAL` good steps it doubles. All of it happens on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), INITIAL_LOSS_SCALE, device=device)
        self.good_steps = torch.zeros((), device=device)  # since the scale last changed

    def update(self, skipped: Tensor) -> None:
        """Adjust the scale after a step; `skipped` is 1.0 if its gradient was not finite."""
        self.good_steps.add_(1).mul_(1 - skipped)
        grows = self.good_steps >= GROWTH_INTERVAL
        self.scale.mul_(torch.where(skipped > 0, 0.5, torch.where(grows, 2.0, 1.0)))
        self.good_steps.mul_(~grows)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint stores."""
        return {"loss_scale/scale": self.scale, "loss_scale/good": self.good_steps}
