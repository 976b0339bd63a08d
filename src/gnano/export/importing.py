"""Imports a model of another program as a folder that all commands read.

    model.pt, .safetensors ─▶ tensor_file ─┐
    model.gguf ─────────────▶ gguf_file ───┼─▶ checks ─▶ OUT/ config, weights, tokenizer, files.json
    a Hugging Face folder ──▶ hf_io ───────┘

Files are not trusted: no code is run, and tensor names and shapes are checked against the config.
"""

from dataclasses import replace
from pathlib import Path

from gnano.checkpoint.export_weights import copy_tokenizer_files
from gnano.checkpoint.run_checkpoints import write_checksums
from gnano.config.model_config import ModelConfig
from gnano.data.sft.chat_template import ChatTemplate, save_template
from gnano.export.gguf_file import read_gguf
from gnano.export.tensor_file import TensorFileHints, read_tensor_file_model
from gnano.model.hf_io import (
    EMBEDDING_KEY,
    LM_HEAD_KEY,
    WEIGHTS_NAME,
    clean_tensors,
    load_config,
    load_tensors,
    save_config,
    save_tensors,
)
from gnano.tokenizer.hf_tokenizer import JINJA_TEMPLATE_FILE, load_tokenizer
from gnano.utils.files import check_output_path, create_dir_atomically
from gnano.utils.validation import require_agreement

DEFAULT_HINTS = TensorFileHints()


def import_model(
    source_path: Path,
    out: Path,
    hints: TensorFileHints = DEFAULT_HINTS,
    tokenizer_folder: Path | None = None,
) -> ModelConfig:
    """Write the folder `out` from a file or folder, and return the model's shape.

    `hints` state what a bare tensor file does not. Raises ValueError or OSError for a model that
    is damaged, hostile or of no supported family.
    """
    if not source_path.exists():
        raise FileNotFoundError(f"There is nothing at {source_path}.")
    check_output_path(out, "--out", filter(None, [source_path, tokenizer_folder]))
    tokenizer, jinja = None, None
    if not source_path.is_file():
        config = load_config(source_path)
        tensors = load_tensors(source_path, config)
        tokenizer_folder = tokenizer_folder or source_path
    elif source_path.suffix == ".gguf":
        if tokenizer_folder:
            raise ValueError(f"{source_path} includes a tokenizer; leave --tokenizer out.")
        config, tensors, tokenizer, jinja = read_gguf(source_path)
    else:
        config, tensors = read_tensor_file_model(source_path, hints)
    if source_path.is_file():
        if LM_HEAD_KEY not in tensors:
            config = replace(config, tie_embeddings=True)
        tensors = clean_tensors(tensors, config, source_path)
    if tokenizer_folder:
        tokenizer = load_tokenizer(tokenizer_folder)
    elif tokenizer is None and config.vocab_size == 50_257:
        from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

        tokenizer = load_gpt2_tokenizer()
    elif tokenizer is None:
        raise ValueError(
            f"{source_path} has {config.vocab_size:,} tokens and no tokenizer; name a folder that "
            f"has it (--tokenizer)."
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"The tokenizer of {tokenizer_folder or source_path} has {tokenizer.vocab_size:,} "
            f"tokens, more than the model's {config.vocab_size:,}."
        )
    for name, hint in vars(hints).items():
        values = {"the option": hint, f"that of {source_path}": getattr(config, name)}
        require_agreement(name, values)
    with create_dir_atomically(out) as partial:
        dtype = tensors[EMBEDDING_KEY].dtype
        save_config(config, dtype, partial, tokenizer.end_of_text_id, tokenizer.files)
        save_tensors(tensors, partial / WEIGHTS_NAME)
        tokenizer.save(partial, config.block_size)
        if tokenizer_folder:
            copy_tokenizer_files([tokenizer_folder], partial)
        elif jinja and (template := ChatTemplate.from_jinja(jinja)):
            save_template(template, partial)
        elif jinja:
            (partial / JINJA_TEMPLATE_FILE).write_text(jinja, "utf-8")
        write_checksums(partial)
    return config
