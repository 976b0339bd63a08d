"""Places the model on the ranks: on a single device, replicated (DDP), or sharded (FSDP2).

                       weights, moments      gradients                     exchanged in a step
    single rank        complete              complete                      nothing
    ddp                complete on each      summed in the backward pass   gradients
    fsdp               a shard on each rank  summed and scattered          weights twice for each
                                                                           micro-batch, gradients
      reshard_after_forward = no    the same, but the weights are gathered once in a step (ZeRO-2)
      hsdp_replicas = R             the same within each of R groups; gradients between them

Every rank takes its own samples of the same global batch, so all of these compute the same step.
DDP is PyTorch's; FSDP is FSDP2 (`fully_shard`), which leaves the model's modules and names as they
are and makes its parameters DTensors. It gathers and scatters them in groups, each while another
one is computed:

    embedding ─▶ block 1 ─▶ … ─▶ block n ─▶ norm ─▶ head and loss
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter
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
    reshard_after_forward: bool = True  # else weights stay gathered until a step's last backward

    def backward_context(self, is_last: bool) -> AbstractContextManager[None]:
        """Wrap loss and backward of a micro-batch: only the last of a step exchanges gradients."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(is_last)
            self.model.set_reshard_after_backward(is_last or self.reshard_after_forward)
        if isinstance(self.loss_fn, DistributedDataParallel) and not is_last:
            return self.loss_fn.no_sync()
        return nullcontext()

    def reshard(self) -> None:
        """Discard gathered parameters, which writing to `parameters` does not change."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def parallelize(
    model: GPT,
    world: DistContext,
    strategy: str,
    compute_dtype: torch.dtype | None,
    replicas: int = 1,
    *,
    reshard_after_forward: bool = True,
    reduce_dtype: str = "fp32",
) -> ParallelModel:
    """Distribute rank 0's model over all ranks; `strategy` is ddp or fsdp.

    The last three are FSDP's `train.hsdp_replicas`, whether gathered weights are released between
    forward and backward, and the dtype of the gradients that the ranks exchange: fp32 or bf16.
    """
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
        if reduce_dtype == "bf16":
            replicated.register_comm_hook(None, _all_reduce_in_bf16)
        parameters = dict(model.named_parameters())
        return ParallelModel(model, replicated, parameters, grad_copies=world.world_size)
    if world.world_size % replicas:
        raise ValueError(
            f"{world.world_size} ranks cannot form {replicas} groups of the same size; choose a "
            f"divisor of {world.world_size} (train.hsdp_replicas)."
        )
    shards, device_type = world.world_size // replicas, world.device.type
    if replicas == 1:  # of one dimension, which needs no groups beside that of all ranks
        mesh = init_device_mesh(device_type, (shards,), mesh_dim_names=("shard",))
    else:
        mesh = init_device_mesh(device_type, (replicas, shards), mesh_dim_names=("copy", "shard"))
    _shard_groups(model, mesh, compute_dtype, reshard_after_forward)
    if reduce_dtype == "bf16":
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_custom_reduce_scatter(_Bf16ReduceScatter())
    # taken now: after a forward pass without a backward pass (a held-out loss) FSDP2 leaves some
    # parameters gathered, and those of the model are then copies in the compute dtype
    sharded = dict(model.named_parameters())
    return ParallelModel(
        model,
        model.loss,
        sharded,
        grad_copies=replicas,
        reshard_after_forward=reshard_after_forward,
    )


def _shard_groups(
    model: GPT, mesh: DeviceMesh, compute_dtype: torch.dtype | None, reshard_after_forward: bool
) -> None:
    """Shard the model in place, in groups that are gathered and scattered together."""
    # gradients are summed in fp32, as in a single process; the inputs of a block are not cast:
    # with angles rounded to bf16, RoPE would rotate by wrong positions
    policy = MixedPrecisionPolicy(
        param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    embedding, head = model.model.embed_tokens, model.lm_head
    groups: list[nn.Module] = [*model.model.layers]
    if not model.config.tie_embeddings:  # else one matrix is needed at both ends: the root's group
        groups = [embedding, *groups, head]
    sharded = [
        # backward begins with the head: its weight would be gathered again immediately
        fully_shard(
            module,
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=reshard_after_forward and module is not head,
        )
        for module in groups
    ]
    # the rest: the final norm. It is the root, which stays gathered between forward and backward
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for name in ("loss", "run_unsharded"):
        register_fsdp_forward_method(model, name)
    register_fsdp_forward_method(head, "loss")
    for group, following in pairwise(sharded):
        group.set_modules_to_forward_prefetch([following])
    if isinstance(embedding, FSDPModule):
        embedding.set_unshard_in_backward(False)  # its gradient needs the ids alone


def _all_reduce_in_bf16(
    group: dist.ProcessGroup, bucket: GradBucket
) -> torch.futures.Future[Tensor]:
    """Average a bucket of DDP's fp32 gradients, in bf16 between the ranks."""
    # DDP refuses the hook itself, by its name, in a build of PyTorch without CUDA
    return bf16_compress_hook(group, bucket)


class _Bf16ReduceScatter(DefaultReduceScatter):
    """FSDP's reduce-scatter in bf16, of gradients that micro-batches have summed in fp32.

    With `MixedPrecisionPolicy.reduce_dtype`, that sum would be in bf16 too.
    """

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> dist.Work:
        """Reduce and scatter like `dist.reduce_scatter_tensor`; FSDP never passes `async_op`."""
        received = torch.empty_like(output_tensor, dtype=torch.bfloat16)
        work = super().__call__(received, input_tensor.bfloat16(), group, op, async_op)
        output_tensor.copy_(received)
        return work


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
