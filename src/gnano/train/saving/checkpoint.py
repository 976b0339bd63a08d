"""What is a checkpoint? A Hugging Face model, and beside it what only training needs.

    checkpoints/step-00001000/     config.json, model.safetensors, the tokenizer's files
                    adapter/       with train.lora: what was learned alone, as PEFT reads it
                    trainer/       state.json: where the run is
                                   *.safetensors: the optimizer and what else has tensors,
                                   written and read by torch.distributed.checkpoint
                    files.json     size and SHA-256 of every other file

Its tensors are whole ones, so it does not depend on how many ranks wrote it or will read it,
and nothing in it is unpickled. It is written into a folder whose name no reader takes for a
checkpoint, forced to disk, and renamed: it appears whole or not at all.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from gnano.data.instructions import Template, save_template
from gnano.model import (
    GPT,
    LoraConfig,
    ModelConfig,
    read_weights,
    save_adapter,
    save_model,
)
from gnano.tokenizer import Tokenizer
from gnano.train.saving.folders import ADAPTER, FOLDER, STATE, TRAINER
from gnano.train.saving.hashes import write_hashes
from gnano.utils.atomic_io import sync
from gnano.utils.json_text import json_text

# one process writes and reads, as it is meant to
warnings.filterwarnings("ignore", "torch.distributed is disabled", module="torch")

LORA = "lora/"  # before the names of an adapter's tensors, among those of training

# bytes of a file in trainer/: each is serialized in one go, during which no other Python runs
FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Beside:
    """What a run's checkpoints hold that never changes."""

    shape: ModelConfig
    tokenizer: Tokenizer
    template: Template | None = None  # how a question looks to a model that was tuned
    base: str = ""  # where the weights lie that an adapter changes
    lora: LoraConfig = field(default_factory=LoraConfig)

    def write(self, folder: Path) -> None:
        self.tokenizer.save(folder, context=self.shape.block_size)
        if self.template is not None:
            save_template(self.template, folder)


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps: tensors on the CPU that nothing changes any more."""

    step: int
    weights: dict[str, Tensor]  # by parameter
    training: dict[str, Tensor]  # all else that has tensors, by name
    state: dict[str, Any]  # the rest, as JSON

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in [*self.weights.values(), *self.training.values()])


def write_checkpoint(
    run: Path,
    snapshot: Snapshot,
    beside: Beside,
    between: Callable[[], None] = lambda: None,
) -> Path:
    """Write the snapshot; returns its folder, which takes the place of one of the same step.

    `run/checkpoints` must be there: where a disk has gone, nothing is to be written into the
    empty folder that it leaves. `between` is called after each part, and may raise to give up.
    """
    folder = run / FOLDER / f"step-{snapshot.step:08}"
    partial, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with torch.device("meta"):
        model = GPT.from_config(beside.shape)
    model.load_state_dict(snapshot.weights, assign=True)
    (partial / TRAINER).mkdir()
    with ThreadPoolExecutor(1) as other:  # writing lets other Python run, and waits for the disk
        training = other.submit(_write_training, snapshot.training, partial / TRAINER)
        save_model(model, partial, beside.tokenizer.end_of_text)
        between()
        beside.write(partial)
        if beside.lora.rank:
            lora = {n: t for n, t in snapshot.training.items() if n.startswith(LORA)}
            adapter = {name.removeprefix(LORA): tensor for name, tensor in lora.items()}
            save_adapter(adapter, beside.lora, beside.base, partial / ADAPTER)
        training.result()
    between()
    state = {"step": snapshot.step, **snapshot.state}
    (partial / TRAINER / STATE).write_text(json_text(state, indent=2) + "\n", "utf-8")
    write_hashes(partial)
    between()
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def read_checkpoint(folder: Path, shape: ModelConfig) -> Snapshot:
    """What was written, on the CPU; `hashes.verify` says whether it still is what it was.

    Raises ValueError, naming the file, for what cannot be a checkpoint of this shape.
    """
    path = folder / TRAINER / STATE
    try:
        state = dict(json.loads(path.read_text("utf-8")))
        step = int(state.pop("step"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}).") from None
    return Snapshot(step, read_weights(folder, shape), _read_training(folder / TRAINER), state)


def _write_training(tensors: Mapping[str, Tensor], folder: Path) -> None:
    file, size, files = 1, 0, {}
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > FILE_BYTES:
            file, size = file + 1, 0
        files[name], size = file, size + tensor.nbytes
    writer = HuggingFaceStorageWriter(
        str(folder), save_distributed=True, fqn_to_index_mapping=files
    )
    try:
        save(dict(tensors), storage_writer=writer, no_dist=True)
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if isinstance(failure, OSError):  # as the full disk that it is
                raise failure from None
        raise


def _read_training(folder: Path) -> dict[str, Tensor]:
    try:
        listed = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in listed.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (SafetensorError, CheckpointException, OSError, KeyError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder} cannot be read ({reason}).") from None
    return tensors
