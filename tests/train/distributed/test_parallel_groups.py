"""FSDP's groups: what is exchanged when; every option computes the steps of one process."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.ranks import on_ranks

from gnano.config.model_config import LoraConfig, ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, TrainConfig
from gnano.data.packed_dataset import Batch
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import gather_full
from gnano.train.evaluator import eval_mode
from gnano.train.train_step import TrainState

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
SHAPE = ModelConfig(
    vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_kv_head=2, ffn_hidden=48, block_size=16
)
BLOCK = 2 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48  # parameters of a block of it
HEAD, EMBEDDING, NORM = 384 * 32, 300 * 32, 32
ZERO_2 = {"reshard_after_forward": "no"}
LORA = LoraConfig(rank=4)
STEPS, MICRO_BATCHES = 3, 2
KINDS = (  # of collectives, with their names in different versions of PyTorch
    ("gather", "all_gather_into_tensor", "all_gather_single"),
    ("scatter", "reduce_scatter_tensor", "reduce_scatter_single"),
    ("all_reduce", "all_reduce"),
)
# of losses and gradient norms, relative; in bf16 a sum over ranks rounds at other places
TOLERANCE = {"fp32": 2e-5, "bf16": 5e-3}


def take_steps(shape: ModelConfig, changes: dict[str, Any], world: DistContext) -> list[float]:
    """Take steps with an evaluation after each; return all losses and norms."""
    config = TrainConfig(
        tokens_per_step=2 * 2 * MICRO_BATCHES * shape.block_size,
        micro_batch_size=4 // world.world_size,
        schedule=LRSchedule(peak=1e-3, warmup=0, floor=1.0),
        **{"parallel": "fsdp", "compile": "no", "precision": "fp32", **changes},
    )
    state = TrainState(Recipe(model=shape, train=config), Path("no run"), world)
    generator = torch.Generator().manual_seed(1)
    values = []
    for step in range(STEPS):
        ids = torch.randint(shape.vocab_size, (MICRO_BATCHES, 4, 17), generator=generator)
        mine = ids.tensor_split(world.world_size, dim=1)[world.rank]
        batches = [Batch(rows[:, :-1], rows[:, 1:], None) for rows in mine]
        values += state.train_step(batches, step).tolist()[:2]
        with eval_mode(state.model):
            values.append(state.model.loss(ids[0, :, :-1], ids[0, :, 1:]).item())
    return values


def losses_of_two_and_of_one(
    cases: Sequence[tuple[ModelConfig, dict[str, Any]]],
) -> list[tuple[list[float], list[float]]]:
    """Return for each case the values of sharded steps, and those of steps without ranks."""
    two, one = (
        DistContext(torch.device("cpu"), dist.get_rank(), 2),
        DistContext(torch.device("cpu")),
    )
    results = []
    for shape, changes in cases:
        alone = {
            key: changes[key] for key in changes.keys() - {"parallel", *ZERO_2, "reduce_dtype"}
        }
        results.append((take_steps(shape, changes, two), take_steps(shape, alone, one)))
    return results


def test_sharded_steps_are_those_of_a_single_process() -> None:
    tied = replace(SHAPE, architecture="qwen3", tie_embeddings=True)
    cases: list[tuple[ModelConfig, dict[str, Any]]] = [
        (shape, {**resharding, **changes, "precision": precision})
        for precision in TOLERANCE
        for resharding in ({"reshard_after_forward": "yes"}, ZERO_2)
        for shape, changes in (
            (SHAPE, {}),
            (SHAPE, {"activation_checkpointing": True}),
            (SHAPE, {"lora": LORA}),
            (tied, {}),
        )
    ]
    for values in on_ranks(2, losses_of_two_and_of_one, cases):
        for (_, changes), (ours, expected) in zip(cases, values, strict=True):
            rtol = TOLERANCE[changes["precision"]]
            np.testing.assert_allclose(ours, expected, rtol=rtol, err_msg=str(changes))


@pytest.mark.compile
def test_sharded_compiled_steps_are_those_of_a_single_process() -> None:
    shallow = replace(SHAPE, n_layer=1)
    changes = {"compile": "yes", "activation_checkpointing": True, "precision": "bf16"}
    cases = [(shallow, changes), (shallow, {**changes, **ZERO_2})]
    for values in on_ranks(2, losses_of_two_and_of_one, cases):
        for ours, expected in values:
            np.testing.assert_allclose(ours, expected, rtol=TOLERANCE["bf16"])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_that_are_exchanged_in_bf16_lose_only_its_rounding(parallel: str) -> None:
    cases = [(SHAPE, {"parallel": parallel, "reduce_dtype": "bf16"})]
    for ((ours, expected),) in on_ranks(2, losses_of_two_and_of_one, cases):
        assert ours != expected
        np.testing.assert_allclose(ours, expected, rtol=TOLERANCE["bf16"])


def exchanges_of_a_step(changes: dict[str, Any]) -> list[tuple[str, int, torch.dtype]]:
    """Return the collectives of the last step and evaluation: kind, elements in all, dtype."""
    exchanges: list[tuple[str, int, torch.dtype]] = []

    def record(kind: str, name: str) -> None:
        function = getattr(dist, name)

        @wraps(function)
        def recording(*arguments: Any, **named: Any) -> Any:
            tensors = [a for a in (*arguments, *named.values()) if isinstance(a, torch.Tensor)]
            largest = max(tensors, key=torch.Tensor.numel)  # of input and output
            exchanges.append((kind, largest.numel(), largest.dtype))
            return function(*arguments, **named)

        setattr(dist, name, recording)

    for kind, *names in KINDS:
        for name in names:
            if hasattr(dist, name):
                record(kind, name)
    world = DistContext(torch.device("cpu"), dist.get_rank(), 2)
    train_step: Callable[..., Any] = TrainState.train_step

    def last_step(*arguments: Any) -> Any:
        exchanges.clear()
        return train_step(*arguments)

    TrainState.train_step = last_step  # type: ignore[method-assign, assignment]
    take_steps(SHAPE, changes, world)
    return exchanges


def elements(
    exchanges: list[tuple[str, int, torch.dtype]], kind: str, dtype: torch.dtype
) -> list[int]:
    return [count for found, count, precision in exchanges if (found, precision) == (kind, dtype)]


@pytest.mark.parametrize("resharding", ["yes", "no"])
def test_weights_are_gathered_once_a_step_or_for_each_pass(resharding: str) -> None:
    changes = {"reshard_after_forward": resharding, "precision": "bf16"}
    exchanges = on_ranks(2, exchanges_of_a_step, changes)[0]
    gathered = elements(exchanges, "gather", torch.bfloat16)
    blocks = [BLOCK] * SHAPE.n_layer
    # what the evaluation before has left gathered is still there: norm and head, or everything
    if resharding == "no":
        assert sorted(gathered) == sorted([NORM, EMBEDDING, *blocks, HEAD])
    else:  # for backward the blocks again, but neither embedding nor head
        passes = MICRO_BATCHES * [EMBEDDING, *blocks, *blocks] + [EMBEDDING, *blocks]
        assert sorted(gathered) == sorted(passes + MICRO_BATCHES * [NORM, HEAD])
    reduced = elements(exchanges, "scatter", torch.float32)
    # the head's gradient, the largest, while the blocks are computed, and not at the end
    assert reduced[:-2] == [HEAD, *blocks] and sorted(reduced[-2:]) == sorted([NORM, EMBEDDING])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_travel_in_the_chosen_dtype(parallel: str) -> None:
    kind = {"ddp": "all_reduce", "fsdp": "scatter"}[parallel]
    exchanges = on_ranks(2, exchanges_of_a_step, {"parallel": parallel, "reduce_dtype": "bf16"})[0]
    trainable = SHAPE.n_layer * BLOCK + EMBEDDING + HEAD + NORM
    assert sum(elements(exchanges, kind, torch.bfloat16)) == trainable
    assert not elements(exchanges, kind, torch.float32)


def groups_of_a_sharded_model(replicas: int) -> int:
    """Return how many process groups there are beside that of all ranks."""
    world = DistContext(torch.device("cpu"), dist.get_rank(), 4)
    config = TrainConfig(
        parallel="fsdp", hsdp_replicas=replicas, compile="no", precision="fp32",
        tokens_per_step=4 * 16, micro_batch_size=1,
    )  # fmt: skip
    TrainState(Recipe(model=SHAPE, train=config), Path("no run"), world)
    return len(dist.distributed_c10d._world.pg_map) - 1


@pytest.mark.parametrize(("replicas", "groups"), [(1, 0), (2, 2)])
def test_a_model_sharded_over_all_ranks_forms_no_other_groups(replicas: int, groups: int) -> None:
    """Each group costs memory and time at the start; those of a single rank would be useless."""
    assert on_ranks(4, groups_of_a_sharded_model, replicas) == [groups] * 4


def drawn_and_initial_weights(
    shape: ModelConfig, changes: dict[str, Any]
) -> tuple[set[str], dict[str, torch.Tensor]]:
    """Return the devices of the random numbers that this rank draws, and all weights on rank 0."""
    devices = set()
    normal = torch.nn.init.normal_

    def recording(tensor: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        devices.add(tensor.device.type)
        return normal(tensor, *arguments, **named)

    torch.nn.init.normal_ = recording
    size = dist.get_world_size()
    world = DistContext(torch.device("cpu"), dist.get_rank(), size)
    config = TrainConfig(
        compile="no", precision="fp32", tokens_per_step=size * 16, micro_batch_size=1, seed=7,
        **changes,
    )  # fmt: skip
    state = TrainState(Recipe(model=shape, train=config), Path("no run"), world)
    weights = gather_full(state.parallel_model.parameters, world)
    return devices, {name: tensor.detach().clone() for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("size", "changes"),
    [(2, {"parallel": "ddp"}), (3, {"parallel": "fsdp"}), (2, {"parallel": "fsdp", "lora": LORA})],
)
def test_initial_weights_are_drawn_once_and_do_not_depend_on_the_ranks(
    size: int, changes: dict[str, Any]
) -> None:
    """Otherwise a machine would hold the model in its memory once for each GPU."""
    shape = replace(SHAPE, architecture="qwen3", tie_embeddings=True) if size == 3 else SHAPE
    ((_, expected),) = on_ranks(1, drawn_and_initial_weights, shape, changes)
    first, *others = on_ranks(size, drawn_and_initial_weights, shape, changes)
    assert "cpu" in first[0] and all(devices == {"meta"} for devices, _ in others)
    assert first[1].keys() == expected.keys()
    assert all(torch.equal(first[1][name], tensor) for name, tensor in expected.items())
