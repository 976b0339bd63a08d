"""The weights as safetensors, alone or as a whole Hugging Face folder, in another dtype."""

from dataclasses import asdict
from pathlib import Path

import torch

from gnano.export.source import Source
from gnano.model import save_tensors, write_config
from gnano.model.folder import WEIGHTS
from gnano.train import copy_words
from gnano.utils.json_text import json_text

SHAPE = "gnano.shape"  # among a lone file's metadata: what no tensor tells


def export_safetensors(source: Source, path: Path, dtype: torch.dtype) -> None:
    """Write the tensors under Hugging Face's names; the shape is written beside them."""
    about = {SHAPE: shape_text(source)}
    save_tensors({n: t.to(dtype) for n, t in source.tensors.items()}, path, about)


def shape_text(source: Source) -> str:
    return json_text(asdict(source.config))


def export_folder(source: Source, folder: Path, dtype: torch.dtype) -> None:
    """Fill a folder that `transformers`, vLLM, mlx-lm and our own commands open as it is."""
    write_config(source.config, dtype, folder, source.tokenizer.end_of_text)
    save_tensors({n: t.to(dtype) for n, t in source.tensors.items()}, folder / WEIGHTS)
    copy_words([source.folder], folder)
