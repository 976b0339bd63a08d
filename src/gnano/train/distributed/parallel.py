"""Places the model on the ranks: on a single device, replicated (DDP), or sharded (FSDP2).

                       weights, moments      gradients                     exchanged in a step
    single rank        complete              complete                      nothing
    ddp                complete on each      summed in the backward pass   gradients
    fsdp               a shard on each rank  summed and scattered          weights twice, gradients
    fsdp, hsdp_replicas = R         the same within each of R groups; gradients between them

Every rank takes its own samples of the same global batch, so all of these compute the same step.
DDP is PyTorch's; FSDP is FSDP2 (`fully_shard`), which leaves the model's modules and names as they
are and makes its parameters DTensors.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext


@dataclass(frozen=True)
class ParallelModel:
    """The model as this rank computes it."""

    model: GPT
    loss_fn: Callable[..., Tensor]  # as `GPT.loss`, for backward
    parameters: dict[str, nn.Parameter]  # fp32, as this rank holds them between two steps
    grad_copies: int = 1  # ranks that hold the same shard of each gradient after the backward pass

    def backward_context(self, is_last: bool) -> AbstractContextManager[None]:
        """Wrap loss and backward of a micro-batch: only the last of a step exchanges gradients."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(is_last)
        if isinstance(self.loss_fn, DistributedDataParallel) and not is_last:
            return self.loss_fn.no_sync()
        return nullcontext()

    def reshard(self) -> None:
        """Discard gathered parameters, which writing to `parameters` does not change."""
        if isinstance(self.model, FSDPModule):
            self.model.reshard()


def parallelize(
    model: GPT,
    world: DistContext,
    strategy: str,
    compute_dtype: torch.dtype | None,
    replicas: int = 1,
) -> ParallelModel:
    """Distribute rank 0's model over all ranks; `strategy` is ddp or fsdp."""
    if world.world_size == 1:
        return ParallelModel(model, model.loss, dict(model.named_parameters()))
    for tensor in [*model.parameters(), *model.buffers()]:
        world.broadcast(tensor.detach())
    if strategy == "ddp":
        replicated = DistributedDataParallel(
            _LossModule(model),
            device_ids=[world.device] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            init_sync=False,  # done above
        )
        parameters = dict(model.named_parameters())
        return ParallelModel(model, replicated, parameters, grad_copies=world.world_size)
    if world.world_size % replicas:
        raise ValueError(
            f"{world.world_size} ranks cannot form {replicas} groups of the same size; choose a "
            f"divisor of {world.world_size} (train.hsdp_replicas)."
        )
    shape = (replicas, world.world_size // replicas)
    mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=("copy", "shard"))
    mesh = mesh if replicas > 1 else mesh["shard"]
    # gradients are summed in fp32, as in a single process; the inputs of a block are not cast:
    # with angles rounded to bf16, RoPE would rotate by wrong positions
    policy = MixedPrecisionPolicy(
        param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for name in ("loss", "run_unsharded"):
        register_fsdp_forward_method(model, name)
    # taken now: after a forward pass without a backward pass (a held-out loss) FSDP2 leaves the
    # root's parameters gathered, and those of the model are then copies in the compute dtype
    sharded = dict(model.named_parameters())
    return ParallelModel(model, model.loss, sharded, grad_copies=replicas)


class _LossModule(nn.Module):
    """The loss as a module's forward, which DDP's hooks need."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.model.loss(*args, **kwargs)


def to_local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_full(tensors: Mapping[str, Tensor], world: DistContext) -> dict[str, Tensor]:
    """Return the full tensors on rank 0, to be saved; {} on the other ranks, which take part."""
    gathered = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if world.is_main:
            # moved to the CPU one by one: all of them together need not fit on the device
            gathered[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return gathered


def shard_like(
    full_tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], world: DistContext
) -> dict[str, Tensor]:
    """Distribute rank 0's full tensors over the ranks like those of the same names in `like`."""
    if world.world_size == 1:
        return {name: full_tensors[name] for name in like}
    shards: dict[str, Tensor] = {}
    for name, layout in like.items():
        full = torch.empty(layout.shape, dtype=layout.dtype, device=world.device)
        if world.is_main:
            full.copy_(full_tensors[name])
        if isinstance(layout, DTensor):
            shards[name] = distribute_tensor(full, layout.device_mesh, layout.placements)
        else:
            shards[name] = world.broadcast(full).to(layout.device)
    return shards
