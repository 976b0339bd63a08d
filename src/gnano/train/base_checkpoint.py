"""The checkpoint that a run starts from."""

from dataclasses import dataclass
from pathlib import Path

from gnano.checkpoint.checksums import sha256_file
from gnano.checkpoint.format import find_checkpoint
from gnano.model.hf_io import load_parameters
from gnano.model.transformer import GPT
from gnano.train.run_dir import RECIPE_FILE, has_started, read_run_metadata

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BaseCheckpoint:
    folder: Path  # the checkpoint itself
    sha256: str  # of its weights

    def run_facts(self) -> dict[str, str]:
        """For the run's recipe."""
        return {"base": str(self.folder), "base_sha256": self.sha256}

    @property
    def missing_message(self) -> str:
        return (
            f"{self.folder}, which the run began with, is gone, and is needed to go on: put it "
            f"back, or begin anew in another folder (--out)."
        )

    def load_into(self, model: GPT) -> None:
        """Copy its weights into the model; raises ValueError where they have changed."""
        path = self.folder / WEIGHTS_FILE
        if not path.is_file():
            raise ValueError(self.missing_message)
        if sha256_file(path) != self.sha256:
            raise ValueError(
                f"{path} is not what the run began with (its hash differs): put that back, or "
                f"begin anew in another folder (--out)."
            )
        weights = load_parameters(self.folder, model.config)
        for name, parameter in model.named_parameters():
            parameter.detach().copy_(weights[name])


def find_base(path: str, run: Path) -> BaseCheckpoint | None:
    """What a run in this folder begins with, or began with; None: with the weights of its seed.

    `path` is that of a run, of a checkpoint, or of any Hugging Face folder like one.
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
