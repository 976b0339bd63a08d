"""Imports a model of another program as a folder that all commands read.

    model.pt, .safetensors ─▶ tensor_file ─┐
    model.gguf ─────────────▶ gguf_file ───┼─▶ checks ─▶ OUT/ config, weights, tokenizer, files.json
    a Hugging Face folder ──▶ below ───────┘

Files are not trusted: no code is run, tensor names and shapes are checked against the config, and
a folder's weight index cannot name files outside the folder.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gnano.checkpoint.export_weights import copy_tokenizer_files
from gnano.checkpoint.run_checkpoints import write_checksums
from gnano.config.model_config import ModelConfig
from gnano.data.sft.chat_template import JINJA_TEMPLATE_FILE, ChatTemplate, save_template
from gnano.export.gguf_file import read_gguf
from gnano.export.tensor_file import TensorFileHints, load_tensor_file, read_tensor_file_model
from gnano.model.hf_io import (
    ROPE_BUFFER_SUFFIX,
    SHARD_INDEX_NAMES,
    WEIGHTS_NAME,
    check_model_tensors,
    read_json_object,
    save_config,
    save_tensors,
)
from gnano.tokenizer.bpe import Tokenizer
from gnano.utils.files import check_output_path, create_dir_atomically
from gnano.utils.validation import require_agreement

DEFAULT_HINTS = TensorFileHints()
LM_HEAD_KEY, EMBEDDING_KEY = "lm_head.weight", "model.embed_tokens.weight"


def import_model(
    source_path: Path,
    out: Path,
    hints: TensorFileHints = DEFAULT_HINTS,
    tokenizer_folder: Path | None = None,
) -> ModelConfig:
    """Write the folder `out` from a file or folder, and return the model's shape.

    `hints` state what a bare tensor file does not. Raises ValueError or OSError for a model that
    is damaged, hostile or not a supported Llama.
    """
    if not source_path.exists():
        raise FileNotFoundError(f"There is nothing at {source_path}.")
    check_output_path(out, "--out", filter(None, [source_path, tokenizer_folder]))
    files, is_tied, tokenizer, jinja = [source_path], None, None, None
    if not source_path.is_file():
        config, tensors, is_tied, files = _read_hf_folder(source_path)
        tokenizer_folder = tokenizer_folder or source_path
    elif source_path.suffix == ".gguf":
        if tokenizer_folder:
            raise ValueError(f"{source_path} includes a tokenizer; leave --tokenizer out.")
        config, tensors, tokenizer, jinja = read_gguf(source_path)
    else:
        config, tensors = read_tensor_file_model(source_path, hints)
    num_bytes = sum(file.stat().st_size for file in files)
    tensors = _check_and_unify_tensors(tensors, config, source_path, num_bytes, is_tied)
    if tokenizer_folder:
        tokenizer = Tokenizer.load(tokenizer_folder)
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
        save_config(config, tensors[LM_HEAD_KEY].dtype, partial, tokenizer.end_of_text_id)
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


def _read_hf_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], bool, list[Path]]:
    """Return the folder's shape and tensors, whether its head is tied, and its weight files."""
    content = read_json_object(folder / "config.json")
    is_tied = bool(content.get("tie_word_embeddings"))
    try:
        config = ModelConfig.from_hf({**content, "tie_word_embeddings": False})
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    files = _find_weight_files(folder)
    tensors: dict[str, Tensor] = {}
    for file, listed in files.items():
        found, _ = load_tensor_file(file)
        if listed and (wrong := sorted(listed ^ found.keys())):
            holds = "holds" if wrong[0] in found else "does not hold"
            raise ValueError(
                f"{file} {holds} {wrong[0]}, but the index in its folder differs; copy both again."
            )
        tensors |= found
    return config, tensors, is_tied, list(files)


def _find_weight_files(folder: Path) -> dict[Path, set[str]]:
    """Map each weight file to its tensor names, as far as an index lists them."""
    for single, index_name in SHARD_INDEX_NAMES.items():  # in the order of transformers
        if (folder / single).is_file():
            return {folder / single: set()}
        index = folder / index_name
        if not index.is_file():
            continue
        listed = read_json_object(index).get("weight_map")
        if not isinstance(listed, dict):
            raise ValueError(f"{index} lists no files (weight_map).")
        files: dict[Path, set[str]] = {}
        for tensor, name in listed.items():
            if Path(str(name)).name != name or not name.endswith(Path(single).suffix):
                raise ValueError(f"{index} names {name!r}, which is not a file in its folder.")
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}, which its index names.")
            files.setdefault(folder / name, set()).add(tensor)
        return files
    names = [*SHARD_INDEX_NAMES, *SHARD_INDEX_NAMES.values()]
    raise FileNotFoundError(f"{folder} has no weights: none of {', '.join(names)}.")


def _check_and_unify_tensors(
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    path: Path,
    num_bytes: int,
    is_tied: bool | None,
) -> dict[str, Tensor]:
    """Return the tensors of `path`, of `num_bytes` bytes, complete and in the dtype of the head.

    With `is_tied` None, the head is the embedding if there is no head. Raises ValueError, naming a
    tensor, where they do not match the shape.
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith(ROPE_BUFFER_SUFFIX)}
    # a stride of 0 makes a few bytes a large matrix
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * num_bytes:
        raise ValueError(f"{path} claims more numbers than its {num_bytes:,} bytes hold.")
    head, embedding = tensors.get(LM_HEAD_KEY), tensors.get(EMBEDDING_KEY)
    if embedding is not None:
        if head is None and is_tied is not False:
            tensors[LM_HEAD_KEY] = embedding.clone()
        elif head is not None and is_tied and not torch.equal(head, embedding):
            raise ValueError(
                f"{path} sets tie_word_embeddings = True, but its {LM_HEAD_KEY} is not its "
                f"{EMBEDDING_KEY}; correct the one that is wrong."
            )
    check_model_tensors(tensors, config, path)
    dtype = tensors[LM_HEAD_KEY].dtype
    return {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
