"""A model from elsewhere, made a folder that all our commands open.

    model.pt, .safetensors ─▶ lone_file ─┐
    model.gguf ─────────────▶ gguf ──────┼─▶ checked ─▶ OUT/ config, weights, tokenizer, files.json
    a Hugging Face folder ──▶ below ─────┘

Nothing in such a file is trusted: no code is run, names and shapes are held against the shape that
they claim, and a folder's list of files stays in the folder.
"""

from pathlib import Path

from torch import Tensor

from gnano.config.model_config import ModelConfig
from gnano.export.gguf_file import read_gguf
from gnano.export.imported_model import ImportedModel, check_and_unify_tensors, load_tokenizer_for
from gnano.export.tensor_file import TensorFileHints, load_tensor_file, read_tensor_file_model
from gnano.model.hf_io import SHARD_INDEX_NAMES, read_json_object
from gnano.utils.streams import check_output_path
from gnano.utils.validation import require_agreement

DEFAULT_HINTS = TensorFileHints()


def import_model(
    source_path: Path,
    out: Path,
    hints: TensorFileHints = DEFAULT_HINTS,
    tokenizer_folder: Path | None = None,
) -> ImportedModel:
    """Make the folder `out` of a file or folder; returns what was found in it.

    `hints` are for what a file of tensors alone does not state. Raises ValueError or OSError, in a
    sentence, for what is damaged, hostile or no Llama that we can run.
    """
    if not source_path.exists():
        raise FileNotFoundError(f"There is nothing at {source_path}.")
    check_output_path(
        out, "--out", [source_path, *([tokenizer_folder] if tokenizer_folder else [])]
    )
    if source_path.is_file() and source_path.suffix == ".gguf":
        if tokenizer_folder:
            raise ValueError(f"{source_path} has a tokenizer of its own; leave --tokenizer out.")
        found = read_gguf(source_path)
    elif source_path.is_file():
        found = read_tensor_file_model(source_path, hints, tokenizer_folder)
    else:
        found = _read_hf_folder(source_path, tokenizer_folder)
    for name, hint in vars(hints).items():
        require_agreement(
            name, {"the option": hint, f"that of {source_path}": getattr(found.config, name)}
        )
    found.save_pretrained(out)
    return found


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
                f"{file} {holds} {wrong[0]}, and the list beside it states otherwise; copy both "
                f"again."
            )
        tensors |= found
    words = tokenizer_folder or folder
    loaded = load_tokenizer_for(config, words, folder)
    size = sum(file.stat().st_size for file in files)
    return ImportedModel(
        config, check_and_unify_tensors(tensors, config, folder, size, tied), loaded, words
    )


def _find_weight_files(folder: Path) -> dict[Path, set[str]]:
    """Map each file of weights to the names of its tensors, as far as an index lists them."""
    for single, index in SHARD_INDEX_NAMES.items():  # in the order of transformers
        if (folder / single).is_file():
            return {folder / single: set()}
        if (folder / index).is_file():
            return _read_weight_index(folder / index, Path(single).suffix)
    raise FileNotFoundError(
        f"{folder} has no weights: none of {', '.join([*SHARD_INDEX_NAMES, *SHARD_INDEX_NAMES.values()])}."
    )


def _read_weight_index(index: Path, suffix: str) -> dict[Path, set[str]]:
    listed = read_json_object(index).get("weight_map")
    if not isinstance(listed, dict):
        raise ValueError(f"{index} lists no files (weight_map).")
    files: dict[Path, set[str]] = {}
    for tensor, name in listed.items():
        if Path(str(name)).name != name or not name.endswith(suffix):
            raise ValueError(f"{index} names {name!r}, which is no file beside it.")
        if not (index.parent / name).is_file():
            raise FileNotFoundError(f"{index.parent} lacks {name}, which its list names.")
        files.setdefault(index.parent / name, set()).add(tensor)
    return files
