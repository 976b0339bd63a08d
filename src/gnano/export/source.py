"""What is to be exported? A checkpoint of ours, or any folder of a Llama that we can run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gnano.model import ModelConfig, read_config, read_tensors
from gnano.tokenizer import Tokenizer
from gnano.train import find_checkpoint


@dataclass(frozen=True)
class Source:
    folder: Path  # a Hugging Face folder
    config: ModelConfig
    tensors: Mapping[str, Tensor]  # under Hugging Face's names; read from the disk when used
    tokenizer: Tokenizer


def open_source(path: Path) -> Source:
    """Of a run's newest checkpoint, a checkpoint, or a model folder.

    Raises FileNotFoundError or ValueError, in a sentence, for what is none.
    """
    folder = find_checkpoint(path)
    config = read_config(folder)
    return Source(folder, config, read_tensors(folder, config), Tokenizer.load(folder))
