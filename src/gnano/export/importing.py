"""A model from elsewhere, made a folder that all our commands open.

    model.pt, .safetensors ─▶ lone_file ─┐
    model.gguf ─────────────▶ gguf ──────┼─▶ checked ─▶ OUT/ config, weights, tokenizer, files.json
    a Hugging Face folder ──▶ below ─────┘

Nothing in such a file is trusted: no code is run, names and shapes are held against the shape that
they claim, and a folder's list of files stays in the folder.
"""

from pathlib import Path

from torch import Tensor

from gnano.export.foreign import Foreign, checked, tokenizer_for
from gnano.export.gguf_reading import read_gguf
from gnano.export.lone_file import Hints, read_lone_file, read_tensor_file
from gnano.model.config import ModelConfig
from gnano.model.folder import INDEXES, read_json
from gnano.utils.agreement import agreed
from gnano.utils.output import check_output

NO_HINTS = Hints()


def import_model(
    path: Path, out: Path, hints: Hints = NO_HINTS, tokenizer: Path | None = None
) -> Foreign:
    """Make the folder `out` of a file or folder; returns what was found in it.

    `hints` are for what a file of tensors alone does not state. Raises ValueError or OSError, in a
    sentence, for what is damaged, hostile or no Llama that we can run.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is nothing at {path}.")
    check_output(out, "--out", [path, *([tokenizer] if tokenizer else [])])
    if path.is_file() and path.suffix == ".gguf":
        if tokenizer:
            raise ValueError(f"{path} has a tokenizer of its own; leave --tokenizer out.")
        found = read_gguf(path)
    elif path.is_file():
        found = read_lone_file(path, hints, tokenizer)
    else:
        found = _read_folder(path, tokenizer)
    for name, hint in vars(hints).items():
        agreed(name, {"the option": hint, f"that of {path}": getattr(found.config, name)})
    found.write(out)
    return found


def _read_folder(folder: Path, tokenizer: Path | None) -> Foreign:
    content = read_json(folder / "config.json")
    tied = bool(content.get("tie_word_embeddings"))
    try:
        config = ModelConfig.from_hf({**content, "tie_word_embeddings": False})
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    tensors: dict[str, Tensor] = {}
    files = _weight_files(folder)
    for file, listed in files.items():
        found, _ = read_tensor_file(file)
        if listed and (wrong := sorted(listed ^ found.keys())):
            holds = "holds" if wrong[0] in found else "does not hold"
            raise ValueError(
                f"{file} {holds} {wrong[0]}, and the list beside it states otherwise; copy both "
                f"again."
            )
        tensors |= found
    words = tokenizer or folder
    loaded = tokenizer_for(config, words, folder)
    size = sum(file.stat().st_size for file in files)
    return Foreign(config, checked(tensors, config, folder, size, tied), loaded, words)


def _weight_files(folder: Path) -> dict[Path, set[str]]:
    """Map each file of weights to the names of its tensors, as far as an index lists them."""
    for single, index in INDEXES.items():  # in the order of transformers
        if (folder / single).is_file():
            return {folder / single: set()}
        if (folder / index).is_file():
            return _indexed_files(folder / index, Path(single).suffix)
    raise FileNotFoundError(
        f"{folder} has no weights: none of {', '.join([*INDEXES, *INDEXES.values()])}."
    )


def _indexed_files(index: Path, suffix: str) -> dict[Path, set[str]]:
    listed = read_json(index).get("weight_map")
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
