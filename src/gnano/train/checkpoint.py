"""How does a run survive? Checkpoints that appear whole or not at all.

    checkpoints/step-00001000/     a Hugging Face model and its tokenizer
                    trainer/       what only training needs: optimizer, position
                    files.json     size and SHA-256 of every other file

Its tensors are whole ones, so it does not depend on how many ranks wrote it or will read it.

A checkpoint is written into a folder whose name no reader takes for one, forced to disk,
and renamed; only then may an older one go. Before a run continues from a checkpoint, every
file is held against `files.json`.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from gnano.model import GPT, load_weights, save_model, save_tensors
from gnano.tokenizer import Tokenizer

FOLDER = "checkpoints"
HASHES = "files.json"
TENSORS = "optimizer.safetensors"


def save_checkpoint(
    run: Path,
    step: int,
    model: GPT,
    training: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    state: dict[str, Any],
) -> Path:
    """Write the checkpoint after so many steps; `state` is kept as JSON. Returns its folder.

    `training` are the tensors, by name, that only training needs.
    """
    folder = run / FOLDER / f"step-{step:08}"
    if folder.exists():
        return folder
    partial = run / FOLDER / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "trainer").mkdir(parents=True)
    save_model(model, partial, tokenizer.end_of_text)
    tokenizer.save(partial, context=model.config.block_size)
    save_tensors(dict(training), partial / "trainer" / TENSORS)
    (partial / "trainer" / "state.json").write_text(json.dumps({"step": step, **state}) + "\n")
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    hashes = {str(p.relative_to(partial)): [p.stat().st_size, _sha256(p)] for p in files}
    (partial / HASHES).write_text(json.dumps(hashes, indent=2) + "\n")
    for path in [*partial.rglob("*"), partial]:
        _sync(path)
    partial.replace(folder)
    _sync(folder.parent)
    return folder


def load_checkpoint(folder: Path, model: GPT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fill the model; returns what was given as `training`, on the CPU, and `state`.

    Raises ValueError, naming the file, where the checkpoint is damaged.
    """
    verify(folder)
    load_weights(model, folder)
    state: dict[str, Any] = json.loads((folder / "trainer" / "state.json").read_text())
    return load_file(folder / "trainer" / TENSORS), state


def checkpoints(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    found = (run / FOLDER).glob("step-*") if (run / FOLDER).is_dir() else ()
    return sorted(p for p in found if re.fullmatch(r"step-\d{8}", p.name) and p.is_dir())


def find_checkpoint(path: Path) -> Path:
    """The model folder that a user means: a run's newest checkpoint, or the folder itself."""
    if (path / "config.json").is_file():
        return path
    found = checkpoints(path)
    if found:
        return found[-1]
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}: the folder does not exist.")
    raise FileNotFoundError(f"{path} holds no checkpoint: neither config.json nor {FOLDER}/step-….")


def keep_newest(run: Path, keep: int) -> None:
    """Remove all but the newest checkpoints."""
    for old in checkpoints(run)[:-keep]:
        doomed = old.with_name(f".{old.name}.old")  # a torn removal is no checkpoint either
        shutil.rmtree(doomed, ignore_errors=True)
        old.replace(doomed)
        shutil.rmtree(doomed)


def verify(folder: Path) -> None:
    """Hold every file against `files.json`; raises ValueError naming the first that differs."""
    mend = f"Delete {folder} to go on from the checkpoint before it, or put the file back."
    try:
        hashes = json.loads((folder / HASHES).read_text())
        listed = {folder / name: (int(size), str(sha)) for name, (size, sha) in hashes.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / HASHES} cannot be read ({error}). {mend}") from None
    for path, (size, sha256) in listed.items():
        if not path.is_file():
            raise ValueError(f"{path} is missing from the checkpoint. {mend}")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes where {size:,} were written: "
                f"it is cut short or was replaced. {mend}"
            )
        if _sha256(path) != sha256:
            raise ValueError(f"{path} does not match its checksum: it is damaged. {mend}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
