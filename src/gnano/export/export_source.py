"""Loads the model to export: shape, tensors and tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.model_config import ModelConfig
from gnano.model.hf_io import load_config, load_tensors
from gnano.tokenizer.bpe import Tokenizer

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ExportSource:
    """A model to export: a checkpoint, or the Hugging Face folder of a Llama."""

    folder: Path
    config: ModelConfig
    tensors: Mapping[str, Tensor]  # under Hugging Face's names; read from disk when used
    tokenizer: Tokenizer


def load_export_source(path: Path) -> ExportSource:
    """Open a run's newest checkpoint, a checkpoint, or a model folder.

    Raises FileNotFoundError or ValueError if the path is none of them.
    """
    folder = find_checkpoint(path)
    config = load_config(folder)
    return ExportSource(folder, config, load_tensors(folder, config), Tokenizer.load(folder))
