"""Several ranks compute the same steps as a single one, with every kind of parallelism."""

import gzip
import json
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.chaos.faults import Fault
from tests.chaos.runs import output, run, start, wait_for_output
from tests.fakes.partial_dataset import PartialDataset
from tests.ranks import on_ranks
from tests.small_models import with_train
from torch._dynamo.backends.debugging import aot_eager

from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, OptimizerConfig, TrainConfig
from gnano.data.packed_dataset import Batch, PackedDataset, TokenizedCorpus
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import parallelize, to_local
from gnano.train.train_step import PrefetchLoader, TrainState
from gnano.train.trainer import train

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
STEPS = 10
CONFIGURATIONS = [
    (2, "fp32", {"parallel": "ddp"}),
    (2, "bf16", {"parallel": "fsdp"}),
    (4, "bf16", {"parallel": "ddp"}),
    (4, "fp32", {"parallel": "fsdp"}),
    (4, "bf16", {"parallel": "fsdp", "hsdp_replicas": 2}),
]
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-3}  # of the losses, relative


@pytest.fixture(scope="module")
def plain(recipe: Recipe) -> Recipe:
    """Steps of 16 sequences, 2 per micro-batch, without dropout, whose draws differ by rank."""
    model = replace(recipe.model, dropout=0.0)
    changes = {"steps": STEPS, "micro_batch_size": 2, "save_every": 100, "eval_every": 5}
    return with_train(replace(recipe, model=model), **changes)


@pytest.fixture(scope="module")
def single_rank(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(plain, tmp_path_factory.mktemp("single") / "run").run


@pytest.fixture(scope="module")
def single_rank_bf16(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "run"
    return train(with_train(plain, precision="bf16"), folder).run


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{STEPS:08}" / "model.safetensors")


@pytest.mark.parametrize(("size", "precision", "changes"), CONFIGURATIONS)
def test_several_ranks_give_the_losses_of_a_single_one(
    plain: Recipe,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    size: int,
    precision: str,
    changes: dict[str, Any],
) -> None:
    fixture = "single_rank" if precision == "fp32" else "single_rank_bf16"
    single: Path = request.getfixturevalue(fixture)
    tolerance = TOLERANCE[precision]
    folder = tmp_path / "run"
    recipe = with_train(plain, precision=precision, **changes)
    assert run(recipe, folder, ranks=size) == [0] * size, output(folder)
    for key, rtol in {"loss": tolerance, "grad_norm": 20 * tolerance}.items():
        ours, expected = ([row[key] for row in rows(path)] for path in (folder, single))
        assert len(ours) == STEPS
        np.testing.assert_allclose(ours, expected, rtol=rtol)
    ours, expected = (
        [row["heldout"]["bits_per_byte"] for row in rows(path) if "heldout" in row]
        for path in (folder, single)
    )
    np.testing.assert_allclose(ours, expected, rtol=10 * tolerance)
    if precision == "fp32":  # AdamW moves by the full rate even if a gradient is mere rounding
        for name, tensor in weights(single).items():
            torch.testing.assert_close(weights(folder)[name], tensor, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("parallel", "precision"), [("ddp", "fp32"), ("fsdp", "bf16")])
def test_a_tied_head_and_norms_of_heads_on_two_ranks(
    plain: Recipe, tmp_path: Path, parallel: str, precision: str
) -> None:
    """The embedding is the head: both of its gradients must reach every rank's copy or shard."""
    model = replace(plain.model, architecture="qwen3", tie_embeddings=True, attention_bias=True)
    tied = with_train(replace(plain, model=model), precision=precision)
    assert run(tied, tmp_path / "one") == [0], output(tmp_path / "one")
    several = with_train(tied, parallel=parallel)
    assert run(several, tmp_path / "two", ranks=2) == [0, 0], output(tmp_path / "two")
    expected = losses(tmp_path / "one")
    np.testing.assert_allclose(losses(tmp_path / "two"), expected, rtol=TOLERANCE[precision])
    assert "lm_head.weight" not in weights(tmp_path / "two")


@pytest.mark.compile
@pytest.mark.parametrize(("parallel", "precision"), [("ddp", "fp32"), ("fsdp", "bf16")])
def test_muon_compiled_blocks_and_recomputation_on_two_ranks(
    plain: Recipe, tmp_path: Path, parallel: str, precision: str
) -> None:
    """All options that change how a step is computed, at the same time."""
    muon = OptimizerConfig(kind="muon")
    shallow = replace(plain, model=replace(plain.model, n_layer=1))
    recipe = with_train(shallow, steps=4, eval_every=2, precision=precision, optimizer=muon)
    expected = train(recipe, tmp_path / "single").run
    folder = tmp_path / "run"
    changes = {"parallel": parallel, "compile": "yes", "activation_checkpointing": True}
    assert run(with_train(recipe, **changes), folder, ranks=2) == [0, 0], output(folder)
    np.testing.assert_allclose(losses(folder), losses(expected), rtol=10 * TOLERANCE[precision])


def test_the_ranks_together_read_the_samples_of_one_in_order(plain: Recipe) -> None:
    data, block_size = plain.pretraining_data, plain.model.block_size
    dataset = PackedDataset(TokenizedCorpus(Path(data.folder)), data.weights, data.seed, block_size)

    def read_step(size: int) -> torch.Tensor:
        worlds = [DistContext(torch.device("cpu"), rank, size) for rank in range(size)]
        loaders = [PrefetchLoader(dataset, world, plain.train) for world in worlds]
        by_rank = [loader.next_micro_batches(7) for loader in loaders]
        # micro-step by micro-step, rank by rank
        steps = zip(*by_rank, strict=True)
        return torch.cat([batch.inputs_BT for micro_step in steps for batch in micro_step])

    assert len(read_step(1)) == plain.train.tokens_per_step // block_size
    assert torch.equal(read_step(1), read_step(2)) and torch.equal(read_step(1), read_step(4))


def test_a_run_stopped_on_one_rank_resumes_with_another_number_and_strategy(
    plain: Recipe, single_rank: Path, tmp_path: Path
) -> None:
    """Sharded over 2 ranks at first, then DDP on 4, then a single rank."""
    folder, stop = tmp_path / "run", Fault("after the optimizer", 3, "term")
    for last_step, size, parallel in [(3, 2, "fsdp"), (6, 4, "ddp")]:
        codes = run(with_train(plain, parallel=parallel), folder, stop, ranks=size)
        assert codes == [128 + signal.SIGTERM] * size, output(folder)
        assert last_step <= rows(folder)[-1]["step"] <= last_step + 2
    result = train(plain, folder)
    assert result.start_step == rows(folder)[result.start_step - 1]["step"] >= 6
    np.testing.assert_allclose(losses(folder), losses(single_rank), rtol=1e-5)


def test_a_wrong_setting_is_reported_by_rank_0_only(plain: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(with_train(plain, micro_batch_size=3), folder, ranks=2) == [2, 2]
    assert "gnano: 512 tokens a step cannot be split over 2 ranks of 3 × 32" in output(folder)
    assert output(folder, rank=1) == ""


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_others_and_is_named(
    plain: Recipe, tmp_path: Path, killed: int
) -> None:
    folder, other = tmp_path / "run", 1 - killed
    codes = run(plain, folder, Fault("in a step", 5), ranks=2, on=killed)
    assert (codes[killed], codes[other]) == (-9, 1)
    printed = output(folder, other)
    assert f"rank {other} on" in printed and "Traceback" not in printed
    if killed:  # rank 0 keeps the store; its own end is noticed by that
        assert "rank 1 on" in printed and "killed" in printed
    else:
        assert "rank 0" in printed


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_are_exchanged_once_a_step(plain: Recipe, tmp_path: Path, parallel: str) -> None:
    """Counted in the profiler's trace of a step of 8 micro-batches."""
    changes = {"micro_batch_size": 1, "profile_start": 3, "profile_steps": 1}
    recipe = with_train(plain, parallel=parallel, steps=4, eval_every=0, **changes)
    assert run(recipe, tmp_path, ranks=2) == [0, 0], output(tmp_path)
    with gzip.open(tmp_path / "profile" / "step-00000003-rank0.json.gz") as trace:
        names = [event.get("name", "") for event in json.load(trace)["traceEvents"]]
    # gloo implements reduce-scatter by an all-reduce too; one more sums the metrics of the step
    buckets = {"ddp": 1, "fsdp": plain.model.n_layer + 3}[parallel]  # embedding, norm and head
    assert names.count("gloo:all_reduce") == buckets + 1


def test_ranks_wait_together_for_data_that_is_still_being_prepared(
    plain: Recipe, single_rank: Path, tmp_path: Path
) -> None:
    partial = PartialDataset(Path(plain.pretraining_data.folder), tmp_path / "data")
    data = replace(plain.pretraining_data, folder=str(partial.folder))
    folder = tmp_path / "run"
    processes = start(with_train(replace(plain, data=data), parallel="ddp"), folder, ranks=2)
    wait_for_output("waiting for `gnano prepare`: held-out text", folder)
    while partial.done < len(partial.sequence):
        time.sleep(0.5)
        partial.finish_tasks()
    partial.finish_all()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0], output(folder)
    assert "waiting" not in output(folder, rank=1)
    np.testing.assert_allclose(losses(folder), losses(single_rank), rtol=1e-5)


def rope_dtype_in_a_block(model: ModelConfig) -> str:
    """Return the dtype of the RoPE angles that the attention of a sharded model gets."""
    world = DistContext(torch.device("cpu"), torch.distributed.get_rank(), 2)
    sharded = parallelize(GPT.from_config(model), world, "fsdp", torch.bfloat16).model
    sharded.compute_dtype = torch.bfloat16
    dtypes: list[str] = []
    attention = sharded.model.layers[0].get_submodule("self_attn")
    attention.register_forward_pre_hook(lambda _, args: dtypes.append(str(args[1].cos_TE.dtype)))
    sharded.loss(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long))
    return dtypes[0]


def test_rope_angles_of_a_sharded_bf16_model_are_not_rounded(plain: Recipe) -> None:
    assert on_ranks(2, rope_dtype_in_a_block, plain.model) == ["torch.float32"] * 2


def steps_with_a_nan(shape: ModelConfig, parallel: str, dtype: torch.dtype) -> list[Any]:
    """Take four steps, the third not finite on one rank; return (skipped, moved, loss scale)."""
    rank = torch.distributed.get_rank()
    world = DistContext(torch.device("cpu"), rank, 2)
    config = TrainConfig(
        tokens_per_step=2 * 2 * shape.block_size,
        micro_batch_size=2,
        parallel=parallel,  # type: ignore[arg-type]
        precision="fp16" if dtype == torch.float16 else "bf16",
        compile="no",
        schedule=LRSchedule(peak=1e-2, warmup=0, floor=1.0),
    )
    state = TrainState(Recipe(model=shape, train=config), Path("no run"), world)
    model, scaler = state.model, state.loss_scale
    generator = torch.Generator().manual_seed(rank)
    results: list[Any] = []
    for number in range(4):
        ids = torch.randint(shape.vocab_size, (2, shape.block_size + 1), generator=generator)
        factor = torch.nan if rank == 1 and number == 2 else 1.0
        hook = model.model.norm.register_forward_hook(lambda _, args, y, f=factor: y * f)
        before = [to_local(p.detach()).clone() for p in model.parameters()]
        skipped = state.train_step([Batch(ids[:, :-1], ids[:, 1:], None)], number).tolist()[2]
        hook.remove()
        pairs = zip(before, model.parameters(), strict=True)
        moved = any(not torch.equal(old, to_local(p.detach())) for old, p in pairs)
        results.append((skipped, moved, scaler.scale.item() if scaler else 0.0))
    return results


@pytest.mark.parametrize(("parallel", "dtype"), [("ddp", torch.bfloat16), ("fsdp", torch.float16)])
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all(
    plain: Recipe, parallel: str, dtype: torch.dtype
) -> None:
    first, second = on_ranks(2, steps_with_a_nan, plain.model, parallel, dtype)
    scales = [2.0**16, 2.0**16, 2.0**15, 2.0**15] if dtype == torch.float16 else [0.0] * 4
    expected = [(float(n == 2), n != 2, scale) for n, scale in enumerate(scales)]
    assert first == second == expected


def graphs_of_a_step(shape: ModelConfig, strategy: str) -> int:
    """Return how many graphs are compiled for the blocks in a step of several ranks."""
    rank = torch.distributed.get_rank()
    world = DistContext(torch.device("cpu"), rank, 2 if strategy else 1)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    torch.compile = partial(torch.compile, backend=backend)
    # several MB in a block, of which DDP would make a graph each
    model = GPT.from_config(replace(shape, n_embd=512, ffn_hidden=1_024, n_head=8, n_kv_head=8))
    model.compile_blocks()
    loss_fn = parallelize(model.train(), world, strategy, None).loss_fn
    loss_fn(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)).backward()
    return len(graphs)


def test_gradients_of_replicas_are_exchanged_without_cutting_a_compiled_block(
    plain: Recipe,
) -> None:
    alone = on_ranks(2, graphs_of_a_step, plain.model, "")
    assert on_ranks(2, graphs_of_a_step, plain.model, "ddp") == alone
