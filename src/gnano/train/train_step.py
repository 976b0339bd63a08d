"""The training state, the micro-batches of a step, and the step, which never waits for the device.

    seed or base ─▶ model ─▶ adapter, fp8, compiled ─▶ placed on the ranks ─▶ optimizer
                                                            ↑ checkpoint ↑

    samples ─▶ micro-batches ─▶ loss ─▶ backward, summed in .grad ─▶ Σ over all ranks ─▶ optimizer
                                                                      loss, tokens, grad², stop

The gradients are divided by one number on the device, which combines the targets that count in the
whole step, gradient clipping and the loss scale of fp16. A second number says whether the step is
skipped, because its loss or gradient is not finite or spikes; both go into the optimizer's kernel.
The ranks exchange four sums once per step, and the host reads the metrics of a GPU one step late,
while it computes the next step.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnano.checkpoint.async_writer import AsyncCheckpointWriter
from gnano.checkpoint.format import LORA_PREFIX, Snapshot, read_checkpoint
from gnano.checkpoint.run_checkpoints import list_checkpoints, read_latest_valid
from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.data.sampler import rank_sample_range
from gnano.data.sft.sft_dataset import AnyBatch, TrainingDataset
from gnano.model.fp8 import convert_to_fp8
from gnano.model.lora import add_lora, merge_lora
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import gather_full, parallelize, shard_like, to_local
from gnano.train.lineage import BaseCheckpoint
from gnano.train.optim.optimizer import GradScaler, Optimizer
from gnano.train.stability import SpikeDetector
from gnano.utils.platform_support import accumulation_dtype, use_deterministic_kernels
from gnano.utils.stop_request import StopRequestedError

# of the activations, by precision; fp8 is that of the large matrix products between them
COMPUTE_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}
STEP_METRICS = ("loss", "grad_norm", "skipped", "stop")  # of a step, in this order
SKIPPED_NOT_FINITE, SKIPPED_SPIKE = 1, 2  # why a step was skipped
# prefixes of saved tensors that do not belong to the optimizer
EXTRA_PREFIXES = ("loss_scale", "spikes", "lora")


class PrefetchLoader:
    """Loads this rank's micro-batches of a step.

    On a GPU the batches of the next step are assembled and copied, through pinned memory and on a
    separate stream, while the current step is computed. A batch depends on its step alone, so that
    needs no worker processes. `skipped_ranges` of data have a first step and a number of steps.
    """

    def __init__(
        self,
        dataset: TrainingDataset,
        world: DistContext,
        config: TrainConfig,
        skipped_ranges: Sequence[list[int]] = (),
    ) -> None:
        self.dataset, self.world, self.skipped_ranges = dataset, world, [*skipped_ranges]
        self.samples_per_step = config.tokens_per_step // dataset.block_size  # over all ranks
        self.micro_batch_size = config.micro_batch_size
        self.accumulation_steps = config.accumulation_steps(dataset.block_size, world.world_size)
        self.copy_stream = torch.Stream(world.device) if world.device.type == "cuda" else None
        self.prefetched: tuple[range, list[AnyBatch]] = (range(0), [])  # of these samples

    def sample_range(self, step: int) -> range:
        """Return the samples of all ranks in this step (from 0): later ones, after skips."""
        skipped = sum(steps for first, steps in self.skipped_ranges if step >= first)
        start = (step + skipped) * self.samples_per_step
        return range(start, start + self.samples_per_step)

    def prefetch(self, step: int) -> None:
        """Start loading a step's micro-batches; do nothing if they are not prepared yet."""
        samples = self.sample_range(step)
        if self.dataset.missing(samples) is None:
            self.prefetched = samples, self._load_micro_batches(samples)

    def next_micro_batches(self, step: int) -> list[AnyBatch]:
        """Return this rank's micro-batches of a step; their data must be prepared."""
        samples = self.sample_range(step)
        prefetched, batches = self.prefetched
        if prefetched != samples:
            batches = self._load_micro_batches(samples)
        self.prefetched = range(0), []
        if self.copy_stream is not None:
            current = torch.accelerator.current_stream(self.world.device)
            current.wait_stream(self.copy_stream)
            for tensor in (tensor for batch in batches for tensor in batch if tensor is not None):
                tensor.record_stream(current)  # its memory stays in use until the step has read it
        return batches

    def _load_micro_batches(self, samples: range) -> list[AnyBatch]:
        on_stream = self.copy_stream is not None
        to_device = methodcaller("to", self.world.device, non_blocking=on_stream)
        batches: list[AnyBatch] = []
        for index in range(self.accumulation_steps):
            mine = rank_sample_range(
                samples.start // self.samples_per_step,
                index,
                self.world.rank,
                samples_per_step=self.samples_per_step,
                micro_batch=self.micro_batch_size,
                world_size=self.world.world_size,
            )
            batch = self.dataset.read_batch(mine)
            if on_stream:
                batch = batch.map_tensors(Tensor.pin_memory)
            with self.copy_stream or nullcontext():
                batches.append(batch.map_tensors(to_device))
        return batches


class TrainState:
    """The model on all ranks and its optimizer.

    They are restored from the run's newest checkpoint, or initialized from its base or its seed.
    `on_damaged` is called with each damaged checkpoint that was skipped, and the reason.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        world: DistContext,
        on_damaged: Callable[[Path, str], None] = lambda *_: None,
        base: BaseCheckpoint | None = None,
    ) -> None:
        self.recipe, self.run, self.world, self.on_damaged = recipe, run, world, on_damaged
        config, stability = recipe.train, recipe.train.stability
        dtype = COMPUTE_DTYPES[config.precision]
        if config.deterministic and world.device.type == "cuda":
            use_deterministic_kernels()
        torch.manual_seed(config.seed)
        # the other ranks get the weights of rank 0: a machine draws and holds them once, not for
        # each of its GPUs
        if world.is_main:
            self.model = GPT.from_config(recipe.model).to(world.device)
        else:
            with torch.device("meta"):
                self.model = GPT.from_config(recipe.model)
            self.model.to_empty(device=world.device)
        if base is not None:

            def load_base() -> None:
                # a checkpoint of the run has all weights, unless it trains an adapter
                if config.lora.rank or not list_checkpoints(run):
                    base.load_into(self.model)

            world.run_on_main(load_base)
        if config.lora.rank:
            add_lora(self.model, config.lora)
        self.model.compute_dtype = dtype
        self.model.activation_checkpointing = config.activation_checkpointing
        # names of the layers
        self.fp8_layers = convert_to_fp8(self.model) if config.precision == "fp8" else []
        if config.compile == "yes":
            self.model.compile_blocks()
        self.parallel_model = parallelize(
            self.model,
            world,
            config.parallel,
            dtype,
            config.hsdp_replicas,
            reshard_after_forward=config.reshard_after_forward != "no",
            reduce_dtype=config.reduce_dtype,
        )
        self.optimizer = Optimizer(self.model, config.optimizer)
        self.loss_scale = GradScaler(world.device) if config.precision == "fp16" else None
        self.spike_detector = (
            SpikeDetector(stability.spike_window, stability.spike_threshold, world.device)
            if stability.spike_threshold
            else None
        )
        # all of the training state that the optimizer does not have; updated in place
        self.extra_tensors: dict[str, Tensor] = {}
        for part in (self.loss_scale, self.spike_detector):
            self.extra_tensors |= part.state_dict() if part else {}
        if config.lora.rank:
            for name, parameter in self.optimizer.parameters.items():
                self.extra_tensors[f"{LORA_PREFIX}{name}"] = parameter.detach()
        self.last_lr = 0.0  # of the last step
        self.completed_steps = 0
        self.loaded_state: dict[str, Any] = {}  # of the checkpoint that was restored
        self.checkpoint: Path | None = None
        self.restore()
        states = (self.parallel_model.parameters, self.optimizer.state, self.extra_tensors)
        tensors = [tensor for state in states for tensor in state.values()]
        # of a checkpoint, apart from its small files
        self.checkpoint_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def train_step(
        self,
        micro_batches: Sequence[AnyBatch],
        step: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """Run training step `step` (zero-based); return its `STEP_METRICS` [4], over all ranks.

        `micro_batches` are those of this rank, on its device; so are the metrics, in the widest
        dtype of the device. The loss is the mean in nats over all targets that count; the norm is
        that of its gradient before clipping. A step whose loss or gradient is not finite or spikes
        changes nothing, and `skipped` is the reason. `stop` is the number of ranks that received a
        stop signal. A single process then abandons the step between two micro-batches: it raises
        StopRequestedError, and nothing has changed.
        """
        config, world, loss_scale = self.recipe.train, self.world, self.loss_scale
        # the random numbers of dropout follow from the step, so no RNG state has to be saved
        seed = np.random.SeedSequence((config.seed, step, world.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        scale = loss_scale.scale if loss_scale else 1
        # DDP and FSDP average the gradients over the ranks; a step needs their sum
        loss_weight = world.world_size / config.tokens_per_step
        sums_dtype = accumulation_dtype(world.device)
        loss_sum, num_targets = torch.zeros(2, dtype=sums_dtype, device=world.device)
        for index, batch in enumerate(micro_batches):
            if index and world.world_size == 1 and should_stop():
                self.optimizer.zero_grad()
                # a step may take minutes, but a stop request allows only seconds
                raise StopRequestedError
            with self.parallel_model.backward_context(is_last=index == len(micro_batches) - 1):
                loss = self.parallel_model.loss_fn(
                    batch.inputs_BT,
                    batch.targets_BT,
                    document_ids_BT=batch.segments_BT,
                    loss_fn=batch.loss_fn,
                )
                (loss * loss_weight * scale).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
            num_targets += batch.count_targets()
        parameters = self.parallel_model.parameters.values()
        grads = [to_local(p.grad) for p in parameters if p.grad is not None]
        grad_norm_sq = torch.nn.utils.get_total_norm(grads).to(sums_dtype) ** 2
        grad_norm_sq = grad_norm_sq / self.parallel_model.grad_copies
        stop_count = torch.full_like(loss_sum, float(should_stop()))

        sums = world.all_reduce_sum(torch.stack([loss_sum, num_targets, grad_norm_sq, stop_count]))
        loss_sum, num_targets, grad_norm_sq, stop_count = sums.unbind()
        num_targets = num_targets.clamp_min(1)  # a step in which no target counts has zero loss
        grad_scale = num_targets / config.tokens_per_step * scale
        norm = grad_norm_sq.sqrt() / grad_scale
        finite = (norm + loss_sum).isfinite()
        divisor = grad_scale * (norm / config.grad_clip).clamp_min(1)
        skipped = SKIPPED_NOT_FINITE * (~finite).to(norm.dtype)
        if self.spike_detector:
            values = torch.stack([loss_sum / num_targets, norm])
            skipped += SKIPPED_SPIKE * (self.spike_detector.is_spike(values) & finite)
            self.spike_detector.update(values, skipped > 0)
        self.last_lr = config.schedule.lr_at(step, config.steps)
        self.optimizer.step(
            self.last_lr,
            1 - step / config.steps,
            torch.where(finite, divisor, 1).float(),
            (skipped > 0).float(),
        )
        self.optimizer.zero_grad()
        if loss_scale:
            loss_scale.update((~finite).float())
        return torch.stack([loss_sum / num_targets, norm, skipped, stop_count])

    def save(self, step: int, state: dict[str, Any], writer: AsyncCheckpointWriter | None) -> None:
        """Start writing the checkpoint of a step; rank 0 has the writer, the others have None."""
        if writer:
            writer.wait_until_idle()
        weights = gather_full(self.parallel_model.parameters, self.world)
        if self.recipe.train.lora.rank and writer:
            weights = merge_lora(weights, self.recipe.train.lora)
        training = gather_full({**self.optimizer.state, **self.extra_tensors}, self.world)
        if writer:
            writer.start(Snapshot(step, weights, training, state))

    def restore(self, is_acceptable: Callable[[dict[str, Any]], bool] = lambda state: True) -> bool:
        """Load the newest checkpoint with an acceptable state; return whether there is one."""
        weights: dict[str, Tensor] = {}  # of rank 0
        training: dict[str, Tensor] = {}

        def read() -> tuple[Path, int, dict[str, Any]] | None:
            read_folder = partial(read_checkpoint, model_config=self.recipe.model)
            found = read_latest_valid(self.run, read_folder, self.on_damaged, is_acceptable)
            if found is None:
                return None
            folder, snapshot = found
            weights.update(snapshot.weights)
            training.update(snapshot.training_tensors)
            return folder, snapshot.step, snapshot.state

        loaded = self.world.run_on_main(read)
        if loaded is None:
            return False
        self.checkpoint, self.completed_steps, self.loaded_state = loaded
        if self.world.is_main:
            saved = {n: t for n, t in training.items() if n.split("/")[0] not in EXTRA_PREFIXES}
            self.optimizer.check_state_dict(saved)
            # a setting that was switched on, or enlarged, since the checkpoint starts fresh
            for name, tensor in self.extra_tensors.items():
                if name not in training or training[name].shape != tensor.shape:
                    training[name] = tensor
        pairs = [(training, {**self.optimizer.state, **self.extra_tensors})]
        # with LoRA, the weights come from the base, and the adapter is an extra tensor
        if not self.recipe.train.lora.rank:
            pairs.append((weights, dict(self.parallel_model.parameters)))
        for full, targets in pairs:
            for name, part in shard_like(full, targets, self.world).items():
                to_local(targets[name].detach()).copy_(to_local(part))
        self.parallel_model.reshard()
        return True
