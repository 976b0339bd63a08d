"""A model from elsewhere, as it was understood; and the folder that all our commands open."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gnano.model import GPT, ModelConfig, save_tensors, write_config
from gnano.model.folder import WEIGHTS
from gnano.tokenizer import Tokenizer
from gnano.train import copy_words, new_folder, write_hashes

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Foreign:
    """Tensors under our names, checked against the shape."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    words: Path | None = None  # a folder with tokenizer and chat template, to take as they are

    def write(self, out: Path) -> None:
        """Make the folder `out`, whole or not at all."""
        with new_folder(out) as partial:
            dtype = self.tensors["lm_head.weight"].dtype
            write_config(self.config, dtype, partial, self.tokenizer.end_of_text)
            save_tensors(dict(self.tensors), partial / WEIGHTS)
            self.tokenizer.save(partial, self.config.block_size)
            if self.words:
                copy_words([self.words], partial)
            write_hashes(partial)


def checked(
    tensors: Mapping[str, Tensor], config: ModelConfig, path: Path, size: int
) -> dict[str, Tensor]:
    """The tensors of `path`, which has `size` bytes, in one dtype and whole.

    Raises ValueError, naming one, where they are not those of this shape.
    """
    with torch.device("meta"):
        expected = {n: list(t.shape) for n, t in GPT.from_config(config).state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} is no such model: tensor {name} is {found.get(name, 'missing')} and ought "
                f"to be {expected.get(name, 'none such')}."
            )
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise ValueError(f"{path}: tensor {name} is {tensor.dtype}; give fp32, bf16 or fp16.")
    # a few bytes can say of themselves that they are a large matrix
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * size:
        raise ValueError(f"{path} claims more numbers than its {size:,} bytes hold.")
    dtype = tensors["lm_head.weight"].dtype
    return {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}


def tokenizer_for(config: ModelConfig, folder: Path | None, path: Path) -> Tokenizer:
    """Of the folder that was named; else GPT-2's, if the vocabulary is as large."""
    if folder is None and config.vocab_size != 50_257:
        raise ValueError(
            f"{path} has {config.vocab_size:,} tokens and no tokenizer; name a folder that has it "
            f"(--tokenizer)."
        )
    if folder is None:
        from gnano.tokenizer import gpt2

        return gpt2()
    tokenizer = Tokenizer.load(folder)
    check_vocabulary(tokenizer, config, folder)
    return tokenizer


def check_vocabulary(tokenizer: Tokenizer, config: ModelConfig, path: Path) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"The tokenizer of {path} has {tokenizer.vocab_size:,} tokens, more than the model's "
            f"{config.vocab_size:,}."
        )
