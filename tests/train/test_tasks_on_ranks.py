"""Tuning on two ranks matches a single rank: SFT, adapters, DPO."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.processes import start_ranks, wait_for_outputs
from tests.small_models import with_train

from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.train.trainer import train
from gnano.utils.jsonl_log import read_metrics


def row_values(run: Path) -> list[list[float]]:
    """Return step, loss, norm and held-out loss of each row, where present."""
    rows = read_metrics(run / "metrics.jsonl")
    found: list[dict[str, Any]] = [
        {**row, "heldout_loss": row.get("heldout", {}).get("loss")} for row in rows
    ]
    keys = ("step", "loss", "grad_norm", "heldout_loss")
    return [[row[key] for key in keys if row.get(key) is not None] for row in found]


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize(
    ("data", "parallel", "precision"),
    [
        ("instructions", "ddp", "bf16"),
        ("an adapter", "fsdp", "bf16"),
        ("preferences", "fsdp", "fp32"),
    ],
)
def test_two_ranks_fine_tune_like_a_single_one(
    sft_recipe: Recipe, dpo_recipe: Recipe, tmp_path: Path, data: str, parallel: str, precision: str
) -> None:
    recipe = dpo_recipe if data == "preferences" else sft_recipe
    # without dropout, whose random numbers differ by rank
    recipe = replace(recipe, model=replace(recipe.model, dropout=0.0))
    lora = LoraConfig(rank=4 * (data == "an adapter"))
    recipe = with_train(recipe, lora=lora, precision=precision)
    single_rank = train(recipe, tmp_path / "single_rank")
    ranks = start_ranks(with_train(recipe, parallel=parallel), tmp_path / "run", 2)
    printed = wait_for_outputs(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(printed)
    for ours, theirs in zip(row_values(tmp_path / "run"), row_values(single_rank.run), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)
    name = f"checkpoints/{single_rank.checkpoint.name}/model.safetensors"
    expected = load_file(single_rank.run / name)
    for tensor, found in load_file(tmp_path / "run" / name).items():
        tolerance = 1e-3 if precision == "fp32" else 5e-3
        torch.testing.assert_close(found, expected[tensor], atol=tolerance, rtol=0)
