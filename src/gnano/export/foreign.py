"""A model read from another format, and the folder that is written for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gnano.data.instructions.templates import JINJA_FILE, Template, save_template
from gnano.model.config import ModelConfig
from gnano.model.folder import COMPUTED, WEIGHTS, check_tensors, save_tensors, write_config
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.appearing import new_folder
from gnano.train.merging import copy_words
from gnano.train.saving.hashes import write_hashes

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Foreign:
    """Tensors under our names, checked against the shape."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    words: Path | None = None  # a folder with tokenizer and chat template, to take as they are
    template: str | None = None  # a chat template in Jinja, where there is no such folder

    def write(self, out: Path) -> None:
        """Write the folder `out` atomically."""
        with new_folder(out) as partial:
            dtype = self.tensors[HEAD].dtype
            write_config(self.config, dtype, partial, self.tokenizer.end_of_text)
            save_tensors(dict(self.tensors), partial / WEIGHTS)
            self.tokenizer.save(partial, self.config.block_size)
            if self.words:
                copy_words([self.words], partial)
            if self.template and (parsed := Template.from_jinja(self.template)):
                save_template(parsed, partial)
            elif self.template:
                (partial / JINJA_FILE).write_text(self.template, "utf-8")
            write_hashes(partial)


def checked(
    tensors: Mapping[str, Tensor], config: ModelConfig, path: Path, size: int, tied: bool | None
) -> dict[str, Tensor]:
    """The tensors of `path`, which has `size` bytes, in one dtype and whole.

    `tied` says whether the head is the embedding; None: where the file has no head of its own.
    Raises ValueError, naming one, where they are not those of this shape.
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith(COMPUTED)}
    # a few bytes can say of themselves that they are a large matrix
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * size:
        raise ValueError(f"{path} claims more numbers than its {size:,} bytes hold.")
    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    if tied and head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ValueError(
            f"{path} says tie_word_embeddings = True, and its {HEAD} is not its {EMBEDDING}; "
            f"correct the one that is wrong."
        )
    if head is None and embedding is not None and tied is not False:
        tensors[HEAD] = embedding.clone()
    check_tensors(tensors, config, path)
    dtype = tensors[HEAD].dtype
    return {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}


def tokenizer_for(config: ModelConfig, folder: Path | None, path: Path) -> Tokenizer:
    """Of the folder that was named; else GPT-2's, if the vocabulary is as large."""
    if folder is None and config.vocab_size != 50_257:
        raise ValueError(
            f"{path} has {config.vocab_size:,} tokens and no tokenizer; name a folder that has it "
            f"(--tokenizer)."
        )
    if folder is None:
        from gnano.tokenizer.gpt2 import gpt2

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
