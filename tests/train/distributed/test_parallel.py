"""Several ranks compute the step that one would, whatever they divide it into."""

import gzip
import json
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.fakes.partial_dataset import Growing
from tests.processes import ends, start_ranks, wait_for_step
from tests.ranks import on_ranks
from tests.small_models import with_train

from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, OptimizerConfig, TrainConfig
from gnano.data.packed_dataset import Batch, PackedDataset
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.model.transformer import GPT
from gnano.train.data_loader import PrefetchLoader
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import parallelize, to_local
from gnano.train.train_step import TrainState
from gnano.train.trainer import train

STEPS = 20
WAYS = [
    (2, "fp32", {"parallel": "ddp"}),
    (2, "bf16", {"parallel": "fsdp"}),
    (4, "bf16", {"parallel": "ddp"}),
    (4, "fp32", {"parallel": "fsdp"}),
    (4, "bf16", {"parallel": "fsdp", "hsdp_replicas": 2}),
]
NEAR = {"fp32": 1e-5, "bf16": 1e-3}  # of the losses, relative
MUON: dict[str, Any] = {"optimizer": OptimizerConfig(kind="muon")}


@pytest.fixture(scope="module")
def plain(recipe: Recipe) -> Recipe:
    """No dropout, whose draws differ from rank to rank; steps of 16 sequences, 2 at once."""
    model = replace(recipe.model, dropout=0.0)
    changes = {"steps": STEPS, "micro_batch_size": 2, "save_every": 100, "eval_every": 10}
    return with_train(replace(recipe, model=model), **changes)


@pytest.fixture(scope="module")
def alone(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    return train(plain, run).run


@pytest.fixture(scope="module")
def alone_in_bf16(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    return train(with_train(plain, precision="bf16"), run).run


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{STEPS:08}" / "model.safetensors")


def ran(recipe: Recipe, run: Path, size: int) -> str:
    """What the first rank printed; every rank ended well."""
    ranks = start_ranks(recipe, run, size)
    printed = ends(ranks)
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(printed)
    assert "steps done" not in "".join(printed[1:])
    return printed[0]


@pytest.mark.parametrize(("size", "precision", "how"), WAYS)
def test_any_number_of_ranks_gives_the_losses_of_one(
    plain: Recipe,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    size: int,
    precision: str,
    how: dict[str, Any],
) -> None:
    alone: Path = request.getfixturevalue("alone" if precision == "fp32" else "alone_in_bf16")
    near = NEAR[precision]
    run = tmp_path / "run"
    printed = ran(with_train(plain, precision=precision, **how), run, size)
    assert f"{STEPS} of {STEPS} steps done" in printed
    for key, tolerance in {"loss": near, "grad_norm": 20 * near}.items():
        ours, theirs = ([row[key] for row in rows(r)] for r in (run, alone))
        assert len(ours) == STEPS
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    ours, theirs = (
        [row["heldout"]["bits_per_byte"] for row in rows(r) if "heldout" in row]
        for r in (run, alone)
    )
    np.testing.assert_allclose(ours, theirs, rtol=10 * near)
    if precision == "fp32":  # where a gradient is all rounding, AdamW steps by the whole rate
        for name, expected in weights(alone).items():
            torch.testing.assert_close(weights(run)[name], expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("how", "precision"), [("ddp", "fp32"), ("fsdp", "bf16")])
def test_muon_compiled_blocks_and_recomputation_give_the_losses_of_one_plain_rank(
    plain: Recipe, tmp_path: Path, how: str, precision: str
) -> None:
    """The options that change how a step is computed, all at once and over two ranks."""
    recipe = with_train(plain, steps=6, eval_every=3, precision=precision, **MUON)
    expected = train(recipe, tmp_path / "alone").run
    run = tmp_path / "run"
    ran(with_train(recipe, parallel=how, compile="yes", activation_checkpointing=True), run, 2)
    np.testing.assert_allclose(losses(run), losses(expected), rtol=10 * NEAR[precision])


def test_the_ranks_together_take_the_samples_of_one_in_their_order(plain: Recipe) -> None:
    corpus = TokenizedCorpus(Path(plain.pretraining_data.folder))
    batches = PackedDataset(
        corpus, plain.pretraining_data.weights, plain.pretraining_data.seed, plain.model.block_size
    )
    cpu = torch.device("cpu")

    def step(size: int) -> torch.Tensor:
        feeds = [
            PrefetchLoader(batches, DistContext(cpu, rank, size), plain.train)
            for rank in range(size)
        ]
        by_rank = [feed.next_micro_batches(7) for feed in feeds]
        # micro-step by micro-step, rank by rank
        return torch.cat([part.inputs_BT for micro in zip(*by_rank, strict=True) for part in micro])

    assert len(step(1)) == plain.train.tokens_per_step // plain.model.block_size
    assert torch.equal(step(1), step(2)) and torch.equal(step(1), step(4))


def test_a_run_stopped_on_one_rank_goes_on_with_other_ranks_and_another_way(
    plain: Recipe, alone: Path, tmp_path: Path
) -> None:
    """7 steps and a bit sharded over 2, then DDP on 4 for some, then alone to the end."""
    run = tmp_path / "run"
    for stop_after, size, how in [(7, 2, "fsdp"), (13, 4, "ddp")]:
        ranks = start_ranks(with_train(plain, parallel=how), run, size, stop_after)
        printed = ends(ranks)
        codes = [rank.returncode for rank in ranks]
        assert codes == [128 + signal.SIGTERM] * size, "\n".join(printed)
        assert stop_after <= rows(run)[-1]["step"] <= stop_after + 1
    result = train(plain, run)
    assert result.start_step == rows(run)[result.start_step - 1]["step"] > 12
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)


def test_a_mistake_is_said_once_by_all_ranks(plain: Recipe, tmp_path: Path) -> None:
    ranks = start_ranks(with_train(plain, micro_batch_size=3), tmp_path / "run", 2)
    printed = ends(ranks)
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert printed[0].startswith("gnano: 512 tokens a step cannot be split over 2 ranks of 3 × 32")
    assert printed[1] == ""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_stops_the_others_with_its_name(
    plain: Recipe, tmp_path: Path, victim: int
) -> None:
    run = tmp_path / "run"
    ranks = start_ranks(with_train(plain, steps=100_000, eval_every=0), run, 2)
    wait_for_step(run, 5, ranks[0])
    ranks[victim].kill()
    other = 1 - victim
    printed = ends(ranks, timeout=60)
    assert ranks[other].returncode == 1
    assert f"rank {other} on" in printed[other] and "Traceback" not in printed[other]
    if victim:  # the first rank keeps the meeting place here; its end is seen by that
        assert "rank 1 on" in printed[0] and "killed" in printed[0]
    else:
        assert "rank 0" in printed[1]


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_gradients_are_exchanged_once_a_step_whatever_its_micro_steps(
    plain: Recipe, tmp_path: Path, how: str
) -> None:
    """Counted in the profiler's trace of one step of 8, and of one step of 2 micro-batches."""
    counts = []
    for micro_batch in (1, 4):
        run = tmp_path / f"{how}-{micro_batch}"
        changes = {"micro_batch": micro_batch, "profile_at": 3, "profile_steps": 1}
        ran(with_train(plain, parallel=how, steps=4, **changes), run, 2)
        with gzip.open(run / "profile" / "step-00000003-rank0.json.gz") as trace:
            names = [event.get("name", "") for event in json.load(trace)["traceEvents"]]
        counts.append(Counter(name for name in names if name.startswith("gloo:")))
    # gloo scatters a sum by an all-reduce too; one more is that of the step's figures
    buckets = {"ddp": 1, "fsdp": plain.model.n_layer + 1}[how]
    assert [count["gloo:all_reduce"] for count in counts] == [buckets + 1] * 2, counts


def test_ranks_wait_together_for_data_that_is_still_being_prepared(
    plain: Recipe, alone: Path, tmp_path: Path
) -> None:
    growing = Growing(Path(plain.pretraining_data.folder), tmp_path / "data")
    recipe = replace(plain, data=replace(plain.pretraining_data, folder=str(growing.folder)))
    ranks = start_ranks(with_train(recipe, parallel="ddp"), tmp_path / "run", 2)
    assert ranks[0].stdout is not None
    said = ranks[0].stdout.readline().decode()
    assert "waiting for `gnano prepare`: held-out text" in said, ends(ranks)
    while growing.done < len(growing.sequence):
        time.sleep(1.5)
        growing.grow()
    growing.conclude()
    printed = ends(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    assert "waiting" not in printed[1], printed
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-5)


def turns_inside_a_block(model: ModelConfig) -> str:
    """In which dtype a sharded model's attention gets the turns of positions."""
    world = DistContext(torch.device("cpu"), torch.distributed.get_rank(), 2)
    placed = parallelize(GPT.from_config(model), world, "fsdp", torch.bfloat16)
    placed.model.compute_dtype = torch.bfloat16
    seen: list[str] = []
    attention = placed.model.model.layers[0].get_submodule("self_attn")
    attention.register_forward_pre_hook(lambda _, given: seen.append(str(given[1].cos_TE.dtype)))
    placed.model.loss(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long))
    return seen[0]


def test_a_sharded_model_in_bf16_turns_by_angles_that_are_not_rounded(plain: Recipe) -> None:
    assert on_ranks(2, turns_inside_a_block, plain.model) == ["torch.float32"] * 2


def poisoned_steps(shape: ModelConfig, how: str, dtype: torch.dtype) -> list[Any]:
    """Of four steps, the third not finite on one rank: skipped, weights moved, loss scale."""
    rank = torch.distributed.get_rank()
    world = DistContext(torch.device("cpu"), rank, 2)
    config = TrainConfig(
        tokens_per_step=2 * 2 * shape.block_size,
        micro_batch_size=2,
        parallel=how,  # type: ignore[arg-type]
        precision="fp16" if dtype == torch.float16 else "bf16",
        compile="no",
        schedule=LRSchedule(peak=1e-2, warmup=0, floor=1.0),
    )
    state = TrainState(Recipe(model=shape, train=config), Path("no run"), world)
    model, scaler = state.model, state.loss_scale
    draw = torch.Generator().manual_seed(rank)
    found: list[Any] = []
    for number in range(4):
        ids = torch.randint(shape.vocab_size, (2, shape.block_size + 1), generator=draw)
        factor = torch.nan if rank == 1 and number == 2 else 1.0
        hook = model.model.norm.register_forward_hook(lambda _, given, y, f=factor: y * f)
        before = [to_local(p.detach()).clone() for p in model.parameters()]
        skipped = state.train_step([Batch(ids[:, :-1], ids[:, 1:], None)], number).tolist()[2]
        hook.remove()
        pairs = zip(before, model.parameters(), strict=True)
        moved = any(not torch.equal(was, to_local(p.detach())) for was, p in pairs)
        found.append((skipped, moved, scaler.scale.item() if scaler else 0.0))
    return found


@pytest.mark.parametrize(("how", "dtype"), [("ddp", torch.bfloat16), ("fsdp", torch.float16)])
def test_a_gradient_that_is_not_finite_on_one_rank_changes_nothing_on_any(
    plain: Recipe, how: str, dtype: torch.dtype
) -> None:
    first, second = on_ranks(2, poisoned_steps, plain.model, how, dtype)
    scales = [2.0**16, 2.0**16, 2.0**15, 2.0**15] if dtype == torch.float16 else [0.0] * 4
    expected = [(float(n == 2), n != 2, scale) for n, scale in enumerate(scales)]
    assert first == second == expected
