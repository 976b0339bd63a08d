"""Checkpoints hold the fp32 weights of the optimizer, whatever the compute dtype.

An evaluation is a forward pass without a backward pass. Parameters that FSDP keeps gathered after
it, in the compute dtype, must reach neither a checkpoint nor the steps after a restore.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.chaos.faults import Fault
from tests.chaos.runs import output, run
from tests.processes import fingerprint, losses
from tests.ranks import on_ranks
from tests.small_models import with_train

from gnano.checkpoint.format import CheckpointAssets, Snapshot, write_checkpoint
from gnano.checkpoint.run_checkpoints import CHECKPOINTS_DIR, find_checkpoint
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import OptimizerConfig
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import gather_full
from gnano.train.evaluator import eval_mode
from gnano.train.train_step import PrefetchLoader, TrainState

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
FSDP: dict[str, Any] = {"parallel": "fsdp"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "hsdp": {**FSDP, "hsdp_replicas": 2},
    "fp16 and muon": {**FSDP, "precision": "fp16", "optimizer": OptimizerConfig(kind="muon")},
    "adapter": {**FSDP, "lora": LoraConfig(rank=2)},
}


@pytest.fixture(scope="module")
def bf16_recipe(recipe: Recipe) -> Recipe:
    changes = {
        "precision": "bf16",
        "micro_batch_size": 2,
        "eval_every": 4,
        "save_every": 4,
        "steps": 8,
    }
    return with_train(recipe, **changes)


def save_after_evaluation(recipes: dict[str, Recipe], runs: Path) -> dict[str, tuple[Any, ...]]:
    """Return for each recipe: saved dtypes, tensors saved wrongly, whether a restore works."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    world = DistContext(torch.device("cpu"), rank, size)
    return {name: _save_and_restore(recipe, runs / name, world) for name, recipe in recipes.items()}


def _save_and_restore(recipe: Recipe, run: Path, world: DistContext) -> tuple[Any, ...]:
    corpus, ids = TokenizedCorpus(Path(recipe.pretraining_data.folder)), torch.arange(32)[None]
    dataset = PackedDataset(corpus, recipe.pretraining_data.weights, 0, recipe.model.block_size)
    loader = PrefetchLoader(dataset, world, recipe.train)
    state = TrainState(recipe, run, world)

    def evaluate() -> float:
        with eval_mode(state.model):
            return state.model.loss(ids, ids).item()

    state.train_step(loader.next_micro_batches(0), 0)
    # now, before any evaluation, the model's own parameters are those that the optimizer updates
    masters = _clone_all(gather_full(dict(state.model.named_parameters()), world))
    before = evaluate()
    snapshots: list[Any] = []

    def keep_copy(snapshot: Snapshot) -> None:
        weights, training = map(_clone_all, (snapshot.weights, snapshot.training_tensors))
        snapshots.append(Snapshot(snapshot.step, weights, training, snapshot.state))

    writer = SimpleNamespace(wait_until_idle=lambda: None, start=keep_copy)
    state.save(1, {}, writer if world.is_main else None)  # type: ignore[arg-type]
    if world.is_main:
        (run / CHECKPOINTS_DIR).mkdir(parents=True)
        write_checkpoint(run, snapshots[0], CheckpointAssets(recipe.model, corpus.tokenizer))
    state.train_step(loader.next_micro_batches(1), 1)
    assert evaluate() != before
    torch.distributed.barrier()
    assert state.restore()
    saved = snapshots[0].weights if snapshots else {}
    trained = {name: tensor for name, tensor in masters.items() if name in saved}
    assert trained or not world.is_main
    if recipe.train.lora.rank:  # the layers are saved with the adapter merged
        trained = {name: tensor for name, tensor in trained.items() if "layers" not in name}
    wrong = [name for name, tensor in trained.items() if not torch.equal(saved[name], tensor)]
    return {str(tensor.dtype) for tensor in saved.values()}, wrong, evaluate() == before


def _clone_all(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_weights_saved_after_an_evaluation_are_those_of_the_optimizer(
    bf16_recipe: Recipe, tmp_path: Path
) -> None:
    recipes = {name: with_train(bf16_recipe, **changes) for name, changes in CONFIGURATIONS.items()}
    first, *others = on_ranks(4, save_after_evaluation, recipes, tmp_path)
    assert first == {name: ({"torch.float32"}, [], True) for name in CONFIGURATIONS}
    assert all(restored for other in others for _, _, restored in other.values())


@pytest.mark.parametrize(("parallel", "size"), [("fsdp", 2), ("ddp", 2), ("auto", 1)])
def test_a_bf16_run_resumes_from_an_evaluated_checkpoint_bit_for_bit(
    bf16_recipe: Recipe, tmp_path: Path, parallel: str, size: int
) -> None:
    """The run is stopped after step 4, which is evaluated and saved, and resumed."""
    recipe = with_train(bf16_recipe, parallel=parallel)
    reference, resumed = tmp_path / "reference", tmp_path / "resumed"
    assert run(recipe, reference, ranks=size) == [0] * size, output(reference)
    stop = Fault("after evaluation", 1, "term")
    assert run(recipe, resumed, stop, ranks=size) == [143] * size, output(resumed)
    stopped = find_checkpoint(resumed)
    assert "heldout" in (resumed / "metrics.jsonl").read_text()
    stored = load_file(stopped / "model.safetensors").values()
    assert {tensor.dtype for tensor in stored} == {torch.float32}
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in stored)
    config = json.loads((stopped / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "float32"
    assert run(recipe, resumed, ranks=size) == [0] * size, output(resumed)
    assert fingerprint(find_checkpoint(resumed)) == fingerprint(find_checkpoint(reference))
    assert losses(resumed) == losses(reference)
