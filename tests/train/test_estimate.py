"""Memory estimates against PyTorch's memory tracker in a real training step on fake tensors."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import Store
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from gnano.config.model_config import PRESETS, TARGET_MODULES, LoraConfig, ModelConfig
from gnano.config.train_config import OptimizerConfig, TrainConfig
from gnano.model import fused_cross_entropy as head_loss_module
from gnano.model.flops import get_gpu
from gnano.model.lora import add_lora
from gnano.model.rope import Rope, rope_table
from gnano.model.transformer import GPT
from gnano.train import estimate as memory_module
from gnano.train.distributed import parallel as parallel_module
from gnano.train.estimate import (
    MemoryEstimate,
    _activation_bytes,
    choose_parallelism,
    estimate_memory,
    fits_in_memory,
)
from gnano.train.optim.optimizer import Optimizer
from gnano.train.train_step import COMPUTE_DTYPES

CPU = torch.device("cpu")


def make_config(
    config: ModelConfig, micro_batch: int, micro_steps: int = 1, ranks: int = 1, **changes
):
    tokens = micro_batch * config.block_size * micro_steps * ranks
    changes = {"device": "cpu", **changes}
    return TrainConfig(micro_batch_size=micro_batch, tokens_per_step=tokens, **changes)


def make_model(config: ModelConfig, settings: TrainConfig) -> GPT:
    model = GPT.from_config(config)
    model.compute_dtype = COMPUTE_DTYPES[settings.precision]
    model.activation_checkpointing = settings.activation_checkpointing
    if settings.precision == "fp8":
        from gnano.model.fp8 import convert_to_fp8

        convert_to_fp8(model)
    return model


def tracked_peak(config: ModelConfig, settings: TrainConfig, ranks: int = 1, mesh=None) -> int:
    """Return the peak bytes of one eager step on this CPU."""
    # fake tensors cannot show which positions count
    all_positions = mock.patch.object(head_loss_module, "_valid_positions", lambda to, size: to)
    with FakeTensorMode(allow_non_fake_inputs=True), all_positions:
        model: Any = make_model(config, settings)  # FSDP gives it methods
        if mesh is not None:
            world: Any = SimpleNamespace(
                world_size=ranks, device=CPU, broadcast=lambda tensor: tensor
            )
            sharded = parallel_module.parallelize(
                model,
                world,
                "fsdp",
                COMPUTE_DTYPES[settings.precision],
                reshard_after_forward=settings.reshard_after_forward == "yes",
            )
        optimizer = Optimizer(model, settings.optimizer)
        ids = torch.zeros(settings.micro_batch_size, config.block_size, dtype=torch.long)
        tracker = MemTracker()
        tracker.track_external(model, *optimizer.state.values())
        micro_steps = settings.accumulation_steps(config.block_size, ranks)
        with tracker:
            for number in range(micro_steps):
                is_last = number == micro_steps - 1
                with nullcontext() if mesh is None else sharded.backward_context(is_last):
                    model.loss(ids, ids).backward()
                tracker.reset_mod_stats()  # it tracks a module only once
            if mesh is None:
                optimizer.step(1e-3)
    rope_table.cache_clear()  # of fake tensors
    return tracker.get_tracker_snapshot("peak")[CPU]["Total"]


@contextmanager
def process_group(backend: str, store: Store, ranks: int) -> Iterator[None]:
    dist.init_process_group(backend, store=store, rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "micro_batch", "micro_steps", "changes"),
    [
        ("1b", 8, 1, {"precision": "bf16"}),  # four of its layers
        ("10m", 16, 1, {"precision": "fp32"}),
        ("10m", 4, 2, {"precision": "fp16"}),
        ("10m", 16, 1, {"precision": "bf16", "activation_checkpointing": True}),
        ("demo", 64, 2, {"precision": "bf16"}),
        ("10m", 1, 1, {"precision": "bf16", "optimizer": OptimizerConfig(kind="muon")}),
    ],
)
def test_estimate_matches_tracked_peak(shape, micro_batch, micro_steps, changes):
    config = replace(PRESETS[shape], n_layer=min(4, PRESETS[shape].n_layer))
    settings = make_config(config, micro_batch, micro_steps, compile="no", **changes)
    seen = tracked_peak(config, settings)
    assert estimate_memory(config, settings).allocated_bytes == pytest.approx(seen, rel=0.1)


@pytest.mark.parametrize("layers", [TARGET_MODULES, ("k_proj", "down_proj")])
def test_estimate_of_adapter_memory(layers):
    """The tracker ignores frozen weights, so this compares part by part."""
    config, lora = PRESETS["10m"], LoraConfig(rank=64, target_modules=layers)
    settings = make_config(config, 1, 2, compile="no", precision="bf16", lora=lora)
    model = GPT.from_config(config)
    add_lora(model, lora)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = estimate_memory(config, settings).parts
    assert parts["weights"] == 4 * sum(p.numel() for p in model.parameters())
    assert parts["gradients"] == 4 * trainable
    moments = Optimizer(model, settings.optimizer).state.values()
    num_bytes = sum(moment.numel() * moment.element_size() for moment in moments)
    assert parts["optimizer moments"] == pytest.approx(num_bytes, rel=1e-3)
    full = estimate_memory(config, replace(settings, lora=LoraConfig()))
    assert sum(parts.values()) < full.total_bytes


@pytest.mark.slow
def test_estimate_matches_tracked_peak_of_fp8():
    config = replace(PRESETS["1b"], n_layer=2, vocab_size=4_096)
    settings = make_config(config, 8, compile="no", precision="fp8")
    seen = tracked_peak(config, settings)
    assert estimate_memory(config, settings).allocated_bytes == pytest.approx(seen, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("resharding", ["yes", "no"])
@pytest.mark.parametrize(("ranks", "micro_steps"), [(4, 2), (16, 1)])
def test_estimate_matches_tracked_peak_of_sharded_rank(ranks, micro_steps, resharding, monkeypatch):
    config = PRESETS["10m"]
    changes = {"compile": "no", "precision": "bf16", "reshard_after_forward": resharding}
    # few activations, beside which gathered weights would not matter
    settings = make_config(config, 1, micro_steps, ranks, parallel="fsdp", **changes)
    with process_group("fake", FakeStore(), ranks):
        # the mesh is made of real tensors
        mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("shard",))
        monkeypatch.setattr(parallel_module, "init_device_mesh", lambda *_, **__: mesh)
        seen = tracked_peak(config, settings, ranks, mesh)
    assert estimate_memory(config, settings, ranks).allocated_bytes == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize("micro_steps", [1, 2])
def test_estimate_includes_ddp_buckets(micro_steps):
    config = PRESETS["demo"]
    settings = make_config(config, 2, micro_steps, ranks=2, compile="no", precision="bf16")
    model = make_model(config, settings)
    ids = torch.zeros(2, config.block_size, dtype=torch.long)
    tracker = MemTracker()
    tracker.track_external(model)
    store: Store = dist.HashStore()  # type: ignore[attr-defined]
    with process_group("gloo", store, 1), tracker:
        loss = parallel_module._LossModule(model)
        replica = DistributedDataParallel(loss, gradient_as_bucket_view=True, init_sync=False)
        for number in range(micro_steps):
            with nullcontext() if number == micro_steps - 1 else replica.no_sync():
                replica(ids, ids).backward()
            tracker.reset_mod_stats()
    seen = tracker.get_tracker_snapshot("peak")[CPU]["Total"]
    predicted = estimate_memory(config, settings, 2, "ddp")
    # there is no optimizer here
    expected = predicted.allocated_bytes - predicted.parts["optimizer moments"]
    assert expected == pytest.approx(seen, rel=0.1)


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_activations_match_partitioner(precision, monkeypatch):
    """Inductor's partitioner decides what is kept; no code is generated."""
    # a CPU has a separate path for short rows
    monkeypatch.setattr("gnano.model.attention.CPU_ATTENTION_MAX_LENGTH", 0)
    config = ModelConfig(
        vocab_size=256, n_embd=128, n_layer=1, n_head=4, n_kv_head=2, ffn_hidden=320, block_size=96
    )
    dtype, B, T = COMPUTE_DTYPES[precision], 3, config.block_size
    model = GPT.from_config(config)
    block = model.model.layers[0]
    table = rope_table(config, CPU)
    ignored = {t.untyped_storage()._cdata for t in [*model.parameters(), *table]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in ignored and tensor.numel() % (B * T) == 0:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    block.compile(backend="aot_eager_decomp_partition")
    x = torch.randn(B, T, config.n_embd, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x, Rope(*table))
    seen = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (B * T)
    settings = make_config(config, B, precision=precision, compile="yes")
    one, two = (
        _activation_bytes(replace(config, n_layer=n), settings, 1, dtype.itemsize)[0]
        for n in (1, 2)
    )
    assert two - one == pytest.approx(seen, rel=0.1)


shapes = st.builds(
    lambda layers, heads, size, ffn, vocab, length: ModelConfig(
        n_layer=layers, n_embd=heads * size, n_head=heads, n_kv_head=1, ffn_hidden=ffn,
        vocab_size=vocab, block_size=length,
    ),
    st.integers(2, 32), st.integers(1, 16), st.sampled_from([32, 64, 128]), st.integers(64, 8_192),
    st.integers(256, 100_000), st.sampled_from([128, 1_024, 4_096]),
)  # fmt: skip
settings = {
    "precision": st.sampled_from(["auto", "fp32", "bf16", "fp16", "fp8"]),
    "compile": st.sampled_from(["auto", "yes", "no"]),
    "activation_checkpointing": st.booleans(),
    "optimizer": st.builds(OptimizerConfig, kind=st.sampled_from(["adamw", "muon"])),
}
config_kwargs = st.fixed_dictionaries(settings)


@given(shapes, config_kwargs, st.sampled_from([1, 2, 4, 8]), st.sampled_from([2, 4, 8]))
def test_more_fsdp_ranks_never_need_more_memory_each(config, changes, micro_batch, ranks):
    settings = make_config(config, micro_batch, micro_steps=32, **changes)
    fewer, twice = (estimate_memory(config, settings, n, "fsdp") for n in (ranks, 2 * ranks))
    assert twice.total_bytes <= fewer.total_bytes


@given(shapes, config_kwargs, st.integers(1, 32), st.sampled_from([("ddp", 1), ("fsdp", 4)]))
def test_activation_checkpointing_never_needs_more_memory(config, changes, micro_batch, how):
    parallel, ranks = how
    settings = make_config(
        config, micro_batch, 2, ranks, **{**changes, "activation_checkpointing": False}
    )
    kept = estimate_memory(config, settings, ranks, parallel)
    assert (
        estimate_memory(
            config, replace(settings, activation_checkpointing=True), ranks, parallel
        ).total_bytes
        <= kept.total_bytes
    )


@given(shapes, config_kwargs, st.integers(1, 32))
def test_parts_add_up_and_none_is_negative(config, changes, micro_batch):
    memory = estimate_memory(config, make_config(config, micro_batch, **changes))
    assert memory.total_bytes == sum(memory.parts.values())
    assert memory.allocated_bytes == memory.total_bytes - memory.parts["framework reserve"]
    assert min(memory.parts.values()) >= 0
    smaller = estimate_memory(config, make_config(config, 1, **changes))
    assert smaller.total_bytes <= memory.total_bytes


@given(shapes, st.sampled_from([1, 2, 4, 8]))
def test_more_hsdp_replicas_never_need_less_memory_each(config, replicas):
    settings = make_config(config, 1, ranks=16, parallel="fsdp", hsdp_replicas=replicas)
    fewer = estimate_memory(config, settings, 16)
    assert (
        fewer.total_bytes
        <= estimate_memory(config, replace(settings, hsdp_replicas=2 * replicas), 16).total_bytes
    )


def chosen(settings, ranks, device_bytes, **changes):
    """Return what is chosen for the 1b model: `parallel` and `reshard_after_forward`."""
    peers = {"has_peer_access": changes.pop("has_peer_access", True)}
    settings = replace(settings, **changes)
    found = choose_parallelism(PRESETS["1b"], settings, ranks, device_bytes, **peers)
    assert replace(found, parallel="auto", reshard_after_forward="auto") == replace(
        settings, parallel="auto", reshard_after_forward="auto"
    )
    return found.parallel, found.reshard_after_forward


def test_auto_parallelism_is_ddp_where_the_model_fits_on_few_gpus():
    settings = make_config(PRESETS["1b"], 8, ranks=2, precision="bf16")
    h200, rtx = get_gpu("h200").memory_bytes, get_gpu("rtx-4090").memory_bytes
    assert chosen(settings, 2, h200) == ("ddp", "auto")
    assert chosen(settings, 2, rtx) == ("fsdp", "yes")
    zero_2 = replace(settings, parallel="fsdp", reshard_after_forward="no")
    needed = estimate_memory(PRESETS["1b"], zero_2, 2).total_bytes
    assert chosen(settings, 2, int(needed / 0.89)) == ("fsdp", "no")
    assert chosen(settings, 2, None) == ("ddp", "auto")
    assert chosen(settings, 1, rtx) == ("ddp", "auto")
    assert chosen(settings, 2, h200, hsdp_replicas=2) == ("fsdp", "no")


def test_auto_parallelism_divides_the_optimizer_among_many_gpus():
    settings = make_config(PRESETS["1b"], 8, ranks=8, precision="bf16")
    assert chosen(settings, 8, get_gpu("h200").memory_bytes) == ("fsdp", "no")
    assert chosen(settings, 8, None) == ("ddp", "auto")
    assert chosen(settings, 8, get_gpu("rtx-4090").memory_bytes)[0] == "fsdp"


def test_auto_parallelism_never_shards_without_peer_access():
    """Weights would go through the host's memory, twice for each micro-batch."""
    for ranks in (2, 8):
        settings = make_config(PRESETS["1b"], 8, ranks=ranks, precision="bf16")
        for gpu in ("h200", "rtx-4090"):
            memory = get_gpu(gpu).memory_bytes
            assert chosen(settings, ranks, memory, has_peer_access=False) == ("ddp", "auto")


def test_a_parallelism_that_is_set_is_kept():
    settings = make_config(PRESETS["1b"], 8, ranks=2, precision="bf16")
    h200, slow = get_gpu("h200").memory_bytes, {"has_peer_access": False}
    assert chosen(settings, 2, h200, parallel="ddp") == ("ddp", "auto")
    assert chosen(settings, 2, h200, parallel="fsdp", **slow) == ("fsdp", "no")
    sharded = {"parallel": "fsdp", "reshard_after_forward": "yes"}
    assert chosen(settings, 2, h200, **sharded) == ("fsdp", "yes")
    assert chosen(settings, 2, None, parallel="fsdp") == ("fsdp", "yes")


def test_slice_sizes_equal_those_of_the_model():
    assert memory_module.CPU_SLICE_BYTES == head_loss_module.CPU_SLICE_BYTES
    assert memory_module.GPU_SLICE_BYTES == head_loss_module.GPU_SLICE_BYTES


def test_a_tenth_of_the_device_stays_free():
    memory = MemoryEstimate("in the head", {"weights": 80, "framework reserve": 10})
    assert fits_in_memory(memory, 100) and not fits_in_memory(memory, 99)


def test_step_that_cannot_be_split_is_refused():
    settings = make_config(PRESETS["1b"], 8)
    with pytest.raises(ValueError, match="cannot be split over 3 ranks"):
        estimate_memory(PRESETS["1b"], settings, 3)
