"""Tuning on several ranks gives what one gives: answers, adapters, and pairs of answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.processes import ends, start_ranks
from tests.small_models import with_train

from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.train.trainer import train
from gnano.utils.jsonl_log import read_metrics


def figures(run: Path) -> list[list[float]]:
    """Step, loss, norm and held-out loss of each row, as far as it has them."""
    rows = read_metrics(run / "metrics.jsonl")
    found: list[dict[str, Any]] = [
        {**row, "held": row.get("heldout", {}).get("loss")} for row in rows
    ]
    keys = ("step", "loss", "grad_norm", "held")
    return [[row[key] for key in keys if row.get(key) is not None] for row in found]


@pytest.mark.parametrize(
    ("what", "how", "precision"),
    [
        ("instructions", "ddp", "bf16"),
        ("an adapter", "ddp", "fp32"),
        ("an adapter", "fsdp", "bf16"),
        ("preferences", "ddp", "bf16"),
        ("preferences", "fsdp", "fp32"),
    ],
)
def test_two_ranks_tune_as_one_does(
    tuning: Recipe, preferring: Recipe, tmp_path: Path, what: str, how: str, precision: str
) -> None:
    recipe = preferring if what == "preferences" else tuning
    # without dropout, whose draws differ from rank to rank
    recipe = replace(recipe, model=replace(recipe.model, dropout=0.0))
    lora = LoraConfig(rank=4 * (what == "an adapter"))
    recipe = with_train(recipe, lora=lora, precision=precision)
    alone = train(recipe, tmp_path / "alone")
    ranks = start_ranks(with_train(recipe, parallel=how), tmp_path / "run", 2)
    printed = ends(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(printed)
    for ours, theirs in zip(figures(tmp_path / "run"), figures(alone.run), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)
    name = f"checkpoints/{alone.checkpoint.name}/model.safetensors"
    expected = load_file(alone.run / name)
    for tensor, found in load_file(tmp_path / "run" / name).items():
        near = 1e-3 if precision == "fp32" else 5e-3
        torch.testing.assert_close(found, expected[tensor], atol=near, rtol=0)
