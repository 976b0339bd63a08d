"""Holds a model read from another format, checks it, and saves it as a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gnano.checkpoint.export_weights import copy_tokenizer_files
from gnano.checkpoint.run_checkpoints import write_checksums
from gnano.config.model_config import ModelConfig
from gnano.data.sft.chat_template import JINJA_TEMPLATE_FILE, ChatTemplate, save_template
from gnano.model.hf_io import (
    ROPE_BUFFER_SUFFIX,
    WEIGHTS_NAME,
    check_model_tensors,
    save_config,
    save_tensors,
)
from gnano.tokenizer.bpe import Tokenizer
from gnano.utils.files import create_dir_atomically

LM_HEAD_KEY, EMBEDDING_KEY = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class ImportedModel:
    """A model under Hugging Face's tensor names, checked against its shape."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    tokenizer_folder: Path | None = None  # tokenizer and chat template to copy unchanged
    chat_template: str | None = None  # in Jinja, where there is no such folder

    def save_pretrained(self, out: Path) -> None:
        """Write the folder `out` atomically."""
        with create_dir_atomically(out) as partial:
            dtype = self.tensors[LM_HEAD_KEY].dtype
            save_config(self.config, dtype, partial, self.tokenizer.end_of_text_id)
            save_tensors(dict(self.tensors), partial / WEIGHTS_NAME)
            self.tokenizer.save(partial, self.config.block_size)
            if self.tokenizer_folder:
                copy_tokenizer_files([self.tokenizer_folder], partial)
            if self.chat_template and (parsed := ChatTemplate.from_jinja(self.chat_template)):
                save_template(parsed, partial)
            elif self.chat_template:
                (partial / JINJA_TEMPLATE_FILE).write_text(self.chat_template, "utf-8")
            write_checksums(partial)


def check_and_unify_tensors(
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    path: Path,
    file_bytes: int,
    tie_word_embeddings: bool | None,
) -> dict[str, Tensor]:
    """Return the tensors of `path`, which has `file_bytes` bytes, complete and in one dtype.

    With `tie_word_embeddings` None, the head is the embedding if the file has no head. Raises
    ValueError, naming a tensor, where they do not match the shape.
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith(ROPE_BUFFER_SUFFIX)}
    # a stride of 0 makes a few bytes a large matrix
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * file_bytes:
        raise ValueError(f"{path} claims more numbers than its {file_bytes:,} bytes hold.")
    head, embedding = tensors.get(LM_HEAD_KEY), tensors.get(EMBEDDING_KEY)
    if (
        tie_word_embeddings
        and head is not None
        and embedding is not None
        and not torch.equal(head, embedding)
    ):
        raise ValueError(
            f"{path} sets tie_word_embeddings = True, but its {LM_HEAD_KEY} is not its "
            f"{EMBEDDING_KEY}; correct the one that is wrong."
        )
    if head is None and embedding is not None and tie_word_embeddings is not False:
        tensors[LM_HEAD_KEY] = embedding.clone()
    check_model_tensors(tensors, config, path)
    dtype = tensors[LM_HEAD_KEY].dtype
    return {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}


def load_tokenizer_for(config: ModelConfig, folder: Path | None, path: Path) -> Tokenizer:
    """Load the tokenizer of a folder; without one GPT-2's, if the vocabulary size matches."""
    if folder is not None:
        tokenizer = Tokenizer.load(folder)
        check_vocab_size(tokenizer, config, folder)
        return tokenizer
    if config.vocab_size != 50_257:
        raise ValueError(
            f"{path} has {config.vocab_size:,} tokens and no tokenizer; name a folder that has it "
            f"(--tokenizer)."
        )
    from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

    return load_gpt2_tokenizer()


def check_vocab_size(tokenizer: Tokenizer, config: ModelConfig, path: Path) -> None:
    """Raise ValueError for a tokenizer with more tokens than the model."""
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"The tokenizer of {path} has {tokenizer.vocab_size:,} tokens, more than the model's "
            f"{config.vocab_size:,}."
        )
