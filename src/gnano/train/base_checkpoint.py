"""The base: the checkpoint whose weights a run starts with, instead of random ones.

A new run records the base's folder and the hash of its weights, so a run without a checkpoint
starts again with the same weights, even if the folder that its user gave has changed.
"""

from dataclasses import dataclass
from pathlib import Path

from gnano.checkpoint.run_checkpoints import find_checkpoint, sha256_file
from gnano.model.hf_io import load_parameters
from gnano.model.transformer import GPT
from gnano.train.run_dir import RECIPE_FILE, has_started, read_run_metadata

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BaseCheckpoint:
    """A checkpoint folder and the hash of its weights."""

    folder: Path
    sha256: str  # of the weights

    def run_facts(self) -> dict[str, str]:
        """Return what the run's recipe.toml records."""
        return {"base": str(self.folder), "base_sha256": self.sha256}

    @property
    def missing_message(self) -> str:
        """The error message for a missing base."""
        return (
            f"{self.folder}, the base of the run, is missing, and the run cannot resume without "
            f"it. Put it back, or start a new run in another folder (--out)."
        )

    def load_into(self, model: GPT) -> None:
        """Copy its weights into the model; raise ValueError where they have changed."""
        path = self.folder / WEIGHTS_FILE
        if not path.is_file():
            raise ValueError(self.missing_message)
        if sha256_file(path) != self.sha256:
            raise ValueError(
                f"{path} has changed since the run was started (its hash differs). Restore it, "
                f"or start a new run in another folder (--out)."
            )
        weights = load_parameters(self.folder, model.config)
        for name, parameter in model.named_parameters():
            parameter.detach().copy_(weights[name])


def find_base(path: str, run: Path) -> BaseCheckpoint | None:
    """Return the base of a run in the folder `run`, or None for random weights.

    A started run keeps the base that it recorded. `path` is a run, a checkpoint, or any Hugging
    Face model folder.
    """
    if not path:
        return None
    if has_started(run):
        facts = read_run_metadata(run / RECIPE_FILE).facts
        if isinstance(facts.get("base"), str) and isinstance(facts.get("base_sha256"), str):
            return BaseCheckpoint(Path(facts["base"]), facts["base_sha256"])
    folder = find_checkpoint(Path(path)).absolute()
    if not (folder / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {WEIGHTS_FILE}.")
    return BaseCheckpoint(folder, sha256_file(folder / WEIGHTS_FILE))
