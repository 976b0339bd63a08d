"""The checkpoint format: a Hugging Face model, and a folder with the state of training.

    checkpoints/step-00001000/     config.json, model.safetensors, the tokenizer's files
                    adapter/       with train.lora: the adapter alone, in PEFT's format
                    trainer/       state.json: the position of the run
                                   *.safetensors: the optimizer's tensors and others, written by
                                   torch.distributed.checkpoint
                    files.json     size and SHA-256 of every other file

Its tensors are not sharded, so it does not depend on the number of ranks that wrote it or will read
it, and nothing in it is unpickled. It is written to a folder whose name no reader takes for a
checkpoint, forced to disk, and renamed: it appears complete or not at all.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gnano.checkpoint.run_checkpoints import (
    ADAPTER_DIR,
    CHECKPOINTS_DIR,
    STATE_FILE,
    TRAINER_DIR,
    read_state,
    write_checksums,
)
from gnano.config.model_config import LoraConfig, ModelConfig
from gnano.data.sft.chat_template import AnyTemplate, ChatTemplate, save_template
from gnano.model.hf_io import load_parameters, save_model
from gnano.model.lora import save_adapter
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.utils.files import dump_json, fsync_path

LORA_PREFIX = "lora/"  # before the names of an adapter's tensors, among the training tensors
# bytes of a file in trainer/: Python's other threads stop while one is serialized
MAX_SHARD_BYTES = 64 * 2**20

# one process writes, as intended
warnings.filterwarnings("ignore", "torch.distributed is disabled", module="torch")


@dataclass(frozen=True)
class CheckpointAssets:
    """The files and metadata that are the same in every checkpoint of a run."""

    model_config: ModelConfig
    tokenizer: Tokenizer
    chat_template: AnyTemplate | None = None  # of a fine-tuned model
    base_model: str = ""  # folder of the weights that an adapter changes
    lora_config: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class Snapshot:
    """The state of a run between two steps, in tensors on the CPU that no longer change."""

    step: int
    weights: dict[str, Tensor]  # by parameter
    training_tensors: dict[str, Tensor]  # all other tensors, by name
    state: dict[str, Any]  # everything else, as JSON


def write_checkpoint(
    run: Path,
    snapshot: Snapshot,
    assets: CheckpointAssets,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Path:
    """Write the snapshot; return its folder, which replaces one of the same step.

    `run/checkpoints` must exist: if a disk was unmounted, nothing may be written to the empty
    mount point. `check_cancelled` is called after each part, and may raise an error to cancel.
    """
    folder = run / CHECKPOINTS_DIR / f"step-{snapshot.step:08}"
    partial, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with torch.device("meta"):
        model = GPT.from_config(assets.model_config)
    model.load_state_dict(snapshot.weights, assign=True)
    (partial / TRAINER_DIR).mkdir()
    with ThreadPoolExecutor(1) as thread:  # writing releases Python's lock
        training = thread.submit(_write_training, snapshot.training_tensors, partial / TRAINER_DIR)
        tokenizer = assets.tokenizer
        save_model(model, partial, tokenizer.end_of_text_id, tokenizer.files)
        check_cancelled()
        assets.tokenizer.save(partial, max_length=assets.model_config.block_size)
        if isinstance(assets.chat_template, ChatTemplate):  # another's is one of the tokenizer's
            save_template(assets.chat_template, partial)
        if assets.lora_config.rank:
            lora = {n: t for n, t in snapshot.training_tensors.items() if n.startswith(LORA_PREFIX)}
            adapter = {name.removeprefix(LORA_PREFIX): tensor for name, tensor in lora.items()}
            save_adapter(adapter, assets.lora_config, assets.base_model, partial / ADAPTER_DIR)
        training.result()
    check_cancelled()
    state = {"step": snapshot.step, **snapshot.state}
    (partial / TRAINER_DIR / STATE_FILE).write_text(dump_json(state, indent=2) + "\n", "utf-8")
    write_checksums(partial)
    check_cancelled()
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    fsync_path(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def _write_training(tensors: Mapping[str, Tensor], folder: Path) -> None:
    # imported here: it takes as long as torch itself, and few commands write a checkpoint
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    index, size, files = 1, 0, {}
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > MAX_SHARD_BYTES:
            index, size = index + 1, 0
        files[name], size = index, size + tensor.nbytes
    writer = HuggingFaceStorageWriter(
        str(folder), save_distributed=True, fqn_to_index_mapping=files
    )
    try:
        save(dict(tensors), storage_writer=writer, no_dist=True)
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if isinstance(failure, OSError):  # such as a full disk
                raise failure from None
        raise


def read_checkpoint(folder: Path, model_config: ModelConfig) -> Snapshot:
    """Read a checkpoint to the CPU, without verifying its checksums.

    Raises ValueError, naming the file, for a checkpoint that is unreadable or of another shape.
    """
    state = read_state(folder)
    weights = load_parameters(folder, model_config)
    training_tensors: dict[str, Tensor] = {}
    try:
        for file in sorted((folder / TRAINER_DIR).glob("*.safetensors")):
            training_tensors |= load_file(file)
    except (SafetensorError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder / TRAINER_DIR} cannot be read ({reason}).") from None
    return Snapshot(state.pop("step"), weights, training_tensors, state)
