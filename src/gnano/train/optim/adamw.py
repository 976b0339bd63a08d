"""AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101), one fused kernel per group.

The computation is torch's fused kernel, applied to the part of each tensor that this rank holds: it
is elementwise, so shards need no communication. Embedding, head and the other matrices decay; the
gains of the norms do not.
"""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from gnano.config.train_config import OptimizerConfig
from gnano.model.devices import NO_FUSED_ADAMW_SCALING
from gnano.train.distributed.parallel import to_local


class AdamW:
    """The optimizer of some parameters, by name, with its moments."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> None:
        self.parameters, self.config = dict(parameters), config
        self.exp_avg = {name: torch.zeros_like(p.detach()) for name, p in parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p.detach()) for name, p in parameters.items()}
        # fp32 and on the device: the kernel counts there, and does not count a skipped step
        self.step_count = {
            name: torch.zeros((), dtype=torch.float32, device=p.device)
            for name, p in parameters.items()
        }
        self.groups: dict[tuple[float, float], list[str]] = defaultdict(list)
        for name, p in parameters.items():
            decay = config.weight_decay if p.dim() >= 2 else 0.0
            lr_scale = {
                "model.embed_tokens.weight": config.embedding_lr_scale,
                "lm_head.weight": config.head_lr_scale,
            }.get(name, 1.0)
            self.groups[lr_scale, decay].append(name)

    @torch.no_grad()
    def step(
        self, lr: float, grad_divisor: Tensor | None = None, skip_step: Tensor | None = None
    ) -> None:
        """Update the weights as `Optimizer.step` does; afterwards the gradients are divided."""
        if {p.device.type for p in self.parameters.values()} & NO_FUSED_ADAMW_SCALING:
            if skip_step is not None and skip_step:  # synchronizes with the device
                return
            if grad_divisor is not None:
                for parameter in self.parameters.values():
                    if parameter.grad is not None:
                        parameter.grad /= grad_divisor
            grad_divisor = skip_step = None
        for (lr_scale, decay), group in self.groups.items():
            names = [name for name in group if self.parameters[name].grad is not None]
            adamw(
                [to_local(self.parameters[name]) for name in names],
                [to_local(self.parameters[name].grad) for name in names],  # type: ignore[arg-type]
                [to_local(self.exp_avg[name]) for name in names],
                [to_local(self.exp_avg_sq[name]) for name in names],
                [],
                [self.step_count[name] for name in names],
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

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments and step counts as `parameter/kind`."""
        kinds = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "step": self.step_count}
        return {
            f"{name}/{kind}": tensors[name]
            for name in self.parameters
            for kind, tensors in kinds.items()
        }
