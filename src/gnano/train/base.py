"""The base: the model whose weights a run starts with, instead of random ones.

A new run records the base's folder and the hash of its weights. So a run that has no checkpoint yet
starts with the same weights again, whatever became of the folder that its user named.
"""

from dataclasses import dataclass
from pathlib import Path

from gnano.model.folder import read_weights
from gnano.model.gpt import GPT
from gnano.train.begun import NAME, has_begun, read_begun
from gnano.train.saving.folders import find_checkpoint
from gnano.train.saving.hashes import sha256_of

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Base:
    folder: Path  # the checkpoint itself
    sha256: str  # of its weights

    def facts(self) -> dict[str, str]:
        """For the run's recipe."""
        return {"base": str(self.folder), "base_sha256": self.sha256}

    @property
    def gone(self) -> str:
        return (
            f"{self.folder}, which the run began with, is gone, and is needed to go on: put it "
            f"back, or begin anew in another folder (--out)."
        )

    def load_into(self, model: GPT) -> None:
        """Copy its weights into the model; raises ValueError where they have changed."""
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise ValueError(self.gone)
        if sha256_of(path) != self.sha256:
            raise ValueError(
                f"{path} is not what the run began with (its hash differs): put that back, or "
                f"begin anew in another folder (--out)."
            )
        weights = read_weights(self.folder, model.config)
        for name, parameter in model.named_parameters():
            parameter.detach().copy_(weights[name])


def base_of(path: str, run: Path) -> Base | None:
    """What a run in this folder begins with, or began with; None: with the weights of its seed.

    `path` is that of a run, of a checkpoint, or of any Hugging Face folder like one.
    """
    if not path:
        return None
    if has_begun(run):
        facts = read_begun(run / NAME).facts
        if isinstance(facts.get("base"), str) and isinstance(facts.get("base_sha256"), str):
            return Base(Path(facts["base"]), facts["base_sha256"])
    folder = find_checkpoint(Path(path)).absolute()
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {WEIGHTS}.")
    return Base(folder, sha256_of(folder / WEIGHTS))
