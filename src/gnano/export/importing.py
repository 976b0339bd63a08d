"""Imports a model of another program as a folder that all commands read.

    model.pt, .safetensors ─▶ tensor_file ─┐
    model.gguf ─────────────▶ gguf_file ───┼─▶ checks ─▶ OUT/ config, weights, tokenizer, files.json
    a Hugging Face folder ──▶ below ───────┘

Files are not trusted: no code is run, tensor names and shapes are checked against the config, and
a folder's weight index cannot name files outside the folder.
"""

from pathlib import Path

from torch import Tensor

from gnano.config.model_config import ModelConfig
from gnano.export.gguf_file import read_gguf
from gnano.export.imported_model import ImportedModel, check_and_unify_tensors, load_tokenizer_for
from gnano.export.tensor_file import TensorFileHints, load_tensor_file, read_tensor_file_model
from gnano.model.hf_io import SHARD_INDEX_NAMES, read_json_object
from gnano.utils.files import check_output_path
from gnano.utils.validation import require_agreement

DEFAULT_HINTS = TensorFileHints()


def import_model(
    source_path: Path,
    out: Path,
    hints: TensorFileHints = DEFAULT_HINTS,
    tokenizer_folder: Path | None = None,
) -> ImportedModel:
    """Write the folder `out` from a file or folder, and return the model.

    `hints` state what a bare tensor file does not. Raises ValueError or OSError for a model that
    is damaged, hostile or not a supported Llama.
    """
    if not source_path.exists():
        raise FileNotFoundError(f"There is nothing at {source_path}.")
    check_output_path(out, "--out", filter(None, [source_path, tokenizer_folder]))
    if source_path.is_file() and source_path.suffix == ".gguf":
        if tokenizer_folder:
            raise ValueError(f"{source_path} includes a tokenizer; leave --tokenizer out.")
        model = read_gguf(source_path)
    elif source_path.is_file():
        model = read_tensor_file_model(source_path, hints, tokenizer_folder)
    else:
        model = _read_hf_folder(source_path, tokenizer_folder)
    for name, hint in vars(hints).items():
        require_agreement(
            name, {"the option": hint, f"that of {source_path}": getattr(model.config, name)}
        )
    model.save_pretrained(out)
    return model


def _read_hf_folder(folder: Path, tokenizer_folder: Path | None) -> ImportedModel:
    content = read_json_object(folder / "config.json")
    tied = bool(content.get("tie_word_embeddings"))
    try:
        config = ModelConfig.from_hf({**content, "tie_word_embeddings": False})
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    tensors: dict[str, Tensor] = {}
    files = _find_weight_files(folder)
    for file, listed in files.items():
        found, _ = load_tensor_file(file)
        if listed and (wrong := sorted(listed ^ found.keys())):
            holds = "holds" if wrong[0] in found else "does not hold"
            raise ValueError(
                f"{file} {holds} {wrong[0]}, but the index in its folder differs; copy both again."
            )
        tensors |= found
    tokenizer = load_tokenizer_for(config, tokenizer_folder or folder, folder)
    size = sum(file.stat().st_size for file in files)
    tensors = check_and_unify_tensors(tensors, config, folder, size, tied)
    return ImportedModel(config, tensors, tokenizer, tokenizer_folder or folder)


def _find_weight_files(folder: Path) -> dict[Path, set[str]]:
    """Map each weight file to its tensor names, as far as an index lists them."""
    for single, index in SHARD_INDEX_NAMES.items():  # in the order of transformers
        if (folder / single).is_file():
            return {folder / single: set()}
        if (folder / index).is_file():
            return _read_weight_index(folder / index, Path(single).suffix)
    names = [*SHARD_INDEX_NAMES, *SHARD_INDEX_NAMES.values()]
    raise FileNotFoundError(f"{folder} has no weights: none of {', '.join(names)}.")


def _read_weight_index(index: Path, suffix: str) -> dict[Path, set[str]]:
    listed = read_json_object(index).get("weight_map")
    if not isinstance(listed, dict):
        raise ValueError(f"{index} lists no files (weight_map).")
    files: dict[Path, set[str]] = {}
    for tensor, name in listed.items():
        if Path(str(name)).name != name or not name.endswith(suffix):
            raise ValueError(f"{index} names {name!r}, which is not a file in its folder.")
        if not (index.parent / name).is_file():
            raise FileNotFoundError(f"{index.parent} has no {name}, which its index names.")
        files.setdefault(index.parent / name, set()).add(tensor)
    return files
