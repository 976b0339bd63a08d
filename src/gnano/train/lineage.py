"""The lineage of a model: the base that a run starts from, and the runs that trained a checkpoint.

A new run records its base's folder and the hash of its weights, so a run without a checkpoint
starts again with the same weights, even if the folder that its user gave has changed.
"""

import hashlib
import json
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnano.checkpoint.run_checkpoints import (
    CHECKPOINTS_DIR,
    CHECKSUMS_FILE,
    checkpoint_step,
    find_checkpoint,
    sha256_file,
)
from gnano.config.data_config import InstructionConfig, InstructionSource, SourceConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.model.hf_io import find_weight_files, load_parameters
from gnano.model.transformer import GPT
from gnano.train.run_dir import METRICS_FILE, RECIPE_FILE, has_started, read_run_metadata
from gnano.utils.files import read_text
from gnano.utils.jsonl_log import read_metrics

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BaseCheckpoint:
    """The checkpoint folder whose weights a run starts with, instead of random ones."""

    folder: Path
    sha256: str  # of the weights

    @property
    def missing_message(self) -> str:
        """The error message for a missing base."""
        return (
            f"{self.folder}, the base of the run, is missing, and the run cannot resume without "
            f"it. Put it back, or start a new run in another folder (--out)."
        )

    def load_into(self, model: GPT) -> None:
        """Copy its weights into the model; raise ValueError where they have changed."""
        if not self.folder.is_dir():
            raise ValueError(self.missing_message)
        if hash_weights(self.folder) != self.sha256:
            raise ValueError(
                f"The weights in {self.folder} have changed since the run was started (their hash "
                f"differs). Restore them, or start a new run in another folder (--out)."
            )
        weights = load_parameters(self.folder, model.config)
        for name, parameter in model.named_parameters():
            parameter.detach().copy_(weights[name])


def find_base(path: str, run: Path) -> BaseCheckpoint:
    """Return the base of a run in the folder `run`; a started run keeps the one that it recorded.

    `path` is a run, a checkpoint, or any Hugging Face model folder.
    """
    if has_started(run):
        facts = read_run_metadata(run / RECIPE_FILE).facts
        if isinstance(facts.get("base"), str) and isinstance(facts.get("base_sha256"), str):
            return BaseCheckpoint(Path(facts["base"]), facts["base_sha256"])
    folder = find_checkpoint(Path(path)).absolute()
    return BaseCheckpoint(folder, hash_weights(folder))


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a model folder's weight file; of several files, that of their hashes.

    Raises FileNotFoundError or ValueError for a folder without weights.
    """
    hashes = [sha256_file(file) for file in sorted(find_weight_files(folder))]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


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
    folder = folder.resolve()
    run = folder.parent.parent
    if folder.parent.name != CHECKPOINTS_DIR or not (run / RECIPE_FILE).is_file():
        return []
    recipe = load_recipe(str(run / RECIPE_FILE))
    facts = tomllib.loads(read_text(run / RECIPE_FILE)).get("run", {})
    step, rows = checkpoint_step(folder), []
    with suppress(OSError, ValueError):  # the log may be missing
        rows = [row for row in read_metrics(run / METRICS_FILE) if row["step"] <= step]
    base, base_sha256 = Path(facts.get("base", "")), ""
    with suppress(OSError, ValueError, LookupError, TypeError):
        base_sha256 = json.loads((base / CHECKSUMS_FILE).read_text("utf-8"))[WEIGHTS_FILE][1]
    is_same_base = base_sha256 == facts.get("base_sha256", "none")
    earlier = training_stages(base) if is_same_base else []
    return [TrainingStage(run.name, step, recipe, facts, rows), *earlier]


def format_base_name(stage: TrainingStage) -> str:
    """Return the name of the run or folder that a run was initialized from, without its path."""
    path = Path(stage.run_metadata.get("base") or stage.recipe.train.init_from)
    if path.parent.name == CHECKPOINTS_DIR:
        return f"{path.parent.parent.name}, step {checkpoint_step(path):,}"
    return path.name
