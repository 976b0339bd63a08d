"""The lineage of a model: the run that a checkpoint is stored in, and those of its bases."""

import json
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnano.checkpoint.run_checkpoints import checkpoint_step
from gnano.config.data_config import InstructionConfig, InstructionSource, SourceConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.utils.files import read_text
from gnano.utils.jsonl_log import read_metrics


@dataclass(frozen=True)
class TrainingStage:
    """A run that trained the model, up to the checkpoint that was used."""

    run_name: str
    step: int
    recipe: Recipe
    run_metadata: dict[str, Any]  # table [run] of its recipe
    metrics: list[dict[str, Any]]  # rows of its log

    @property
    def sources(self) -> "dict[str, SourceConfig | InstructionSource]":
        """The data sources by name."""
        return dict(self.recipe.data.sources)

    @property
    def instruction_config(self) -> InstructionConfig | None:
        """The data of a tuning run; None for pretraining."""
        return self.recipe.data if isinstance(self.recipe.data, InstructionConfig) else None


def training_stages(folder: Path) -> list[TrainingStage]:
    """Return the runs that a checkpoint comes from, the last first; [] for other model folders.

    The base's runs are included if the base still exists with the same weights.
    """
    run = folder.resolve().parent.parent
    if folder.resolve().parent.name != "checkpoints" or not (run / "recipe.toml").is_file():
        return []
    recipe = load_recipe(str(run / "recipe.toml"))
    facts = tomllib.loads(read_text(run / "recipe.toml")).get("run", {})
    step, rows = checkpoint_step(folder.resolve()), []
    with suppress(OSError, ValueError):  # the log may be missing
        rows = [row for row in read_metrics(run / "metrics.jsonl") if row["step"] <= step]
    base = Path(facts.get("base", ""))
    earlier = (
        training_stages(base)
        if _read_weights_sha256(base) == facts.get("base_sha256", "none")
        else []
    )
    return [TrainingStage(run.name, step, recipe, facts, rows), *earlier]


def format_base_name(stage: TrainingStage) -> str:
    """Return the name of the run or folder that a run was initialized from, without its path."""
    path = Path(stage.run_metadata.get("base") or stage.recipe.train.init_from)
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}, step {checkpoint_step(path):,}"
    return path.name


def _read_weights_sha256(folder: Path) -> str:
    """Return the hash that a checkpoint records for its weights, or ""."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((folder / "files.json").read_text("utf-8"))["model.safetensors"][1])
    return ""
