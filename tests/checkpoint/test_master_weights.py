"""Checkpoints hold the fp32 weights that the optimizer steps, however the model computes.

A measurement is a forward pass without a backward one. What a wrapper keeps gathered after it, in
the precision of the products, must reach neither a checkpoint nor the steps after a restore.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.processes import ends, fingerprint, losses, start_ranks
from tests.ranks import on_ranks
from tests.small_models import with_train

from gnano.checkpoint.format import CHECKPOINTS_DIR, CheckpointAssets, write_checkpoint
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import OptimizerConfig
from gnano.data.packed_dataset import PackedDataset
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.train.data_loader import PrefetchLoader
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import gather_full
from gnano.train.heldout_loss import eval_mode
from gnano.train.train_step import TrainState

FSDP: dict[str, Any] = {"parallel": "fsdp"}
COMPANY: dict[str, dict[str, Any]] = {
    "fsdp": FSDP,
    "hsdp": {**FSDP, "replicas": 2},
    "fp16": {**FSDP, "precision": "fp16"},
    "muon": {**FSDP, "optimizer": OptimizerConfig(kind="muon")},
    "adapter": {**FSDP, "lora": LoraConfig(rank=2)},
}


@pytest.fixture(scope="module")
def in_bf16(recipe: Recipe) -> Recipe:
    changes = {"precision": "bf16", "micro_batch": 2, "eval_every": 4, "save_every": 4, "steps": 8}
    return with_train(recipe, **changes)


def around_a_measurement(recipes: dict[str, Recipe], runs: Path) -> dict[str, tuple[Any, ...]]:
    """Of each recipe: dtypes saved, tensors saved otherwise than stepped, is a restore obeyed?"""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    world = DistContext(torch.device("cpu"), rank, size)
    return {name: _around(recipe, runs / name, world) for name, recipe in recipes.items()}


def _around(recipe: Recipe, run: Path, world: DistContext) -> tuple[Any, ...]:
    corpus, ids = TokenizedCorpus(Path(recipe.pretraining_data.folder)), torch.arange(32)[None]
    batches = PackedDataset(corpus, recipe.pretraining_data.weights, 0, recipe.model.block_size)
    feed = PrefetchLoader(batches, world, recipe.train)
    trainee = TrainState(recipe, run, world)

    def measured() -> float:
        with eval_mode(trainee.model):
            return trainee.model.loss(ids, ids).item()

    trainee.train_step(feed.next_micro_batches(0), 0)
    # at this moment, before any measurement, the model's own are those that the optimizer steps
    masters = gather_full(dict(trainee.model.named_parameters()), world)
    masters = {name: tensor.detach().clone() for name, tensor in masters.items()}
    before = measured()
    found: list[Any] = []
    keeper = SimpleNamespace(ready=lambda: None, copy=_cloned, start=found.append)
    trainee.save(1, {}, keeper if world.is_main else None)  # type: ignore[arg-type]
    if world.is_main:
        (run / CHECKPOINTS_DIR).mkdir(parents=True)
        write_checkpoint(run, found[0], CheckpointAssets(recipe.model, corpus.tokenizer))
    trainee.train_step(feed.next_micro_batches(1), 1)
    assert measured() != before
    torch.distributed.barrier()
    assert trainee.restore()
    saved = found[0].weights if found else {}
    learned = {name: tensor for name, tensor in masters.items() if name in saved}
    assert learned or not world.is_main
    if recipe.train.lora.rank:  # beside the merged weights lies what was learned
        learned = {name: tensor for name, tensor in learned.items() if "layers" not in name}
    other = [name for name, tensor in learned.items() if not torch.equal(saved[name], tensor)]
    return {str(tensor.dtype) for tensor in saved.values()}, other, measured() == before


def _cloned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_what_is_saved_after_a_measurement_is_what_the_optimizer_steps(
    in_bf16: Recipe, tmp_path: Path
) -> None:
    recipes = {name: with_train(in_bf16, **how) for name, how in COMPANY.items()}
    first, *others = on_ranks(4, around_a_measurement, recipes, tmp_path)
    assert first == {name: ({"torch.float32"}, [], True) for name in COMPANY}
    assert all(obeyed for other in others for _, _, obeyed in other.values())


@pytest.mark.parametrize("how", ["fsdp", "ddp", "alone"])
def test_a_run_in_bf16_goes_on_from_a_measured_checkpoint_bit_for_bit(
    in_bf16: Recipe, tmp_path: Path, how: str
) -> None:
    """Ended at step 4, which is measured and saved, and gone on with in other processes."""
    recipe = with_train(in_bf16, parallel="auto" if how == "alone" else how)

    def ran(run: Path, stop_after: int | None = None) -> Path:
        ranks = start_ranks(recipe, run, 1 if how == "alone" else 2, stop_after)
        printed = ends(ranks)
        codes = {rank.returncode for rank in ranks}
        assert codes == ({0} if stop_after is None else {143}), "\n".join(printed)
        return run / CHECKPOINTS_DIR

    straight = ran(tmp_path / "straight") / "step-00000008"
    half = ran(tmp_path / "run", stop_after=4) / "step-00000004"
    stored = load_file(half / "model.safetensors").values()
    assert {tensor.dtype for tensor in stored} == {torch.float32}
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in stored)
    config = json.loads((half / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "float32"
    assert "heldout" in (tmp_path / "run/metrics.jsonl").read_text()
    again = ran(tmp_path / "run") / "step-00000008"
    assert fingerprint(again) == fingerprint(straight)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
