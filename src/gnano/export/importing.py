"""A model from elsewhere, made a folder that all our commands open.

    model.pt, .safetensors ─▶ lone_file ─┐
    model.gguf ─────────────▶ gguf ──────┼─▶ checked ─▶ OUT/ config, weights, tokenizer, files.json
    a Hugging Face folder ──▶ below ─────┘

Nothing in such a file is trusted: no code is run, names and shapes are held against the shape that
they claim, and a folder's list of files stays in the folder.
"""

from pathlib import Path

from torch import Tensor

from gnano.export.foreign import Foreign, check_vocabulary, checked
from gnano.export.gguf_reading import read_gguf
from gnano.export.lone_file import Hints, read_lone_file, read_tensors_of
from gnano.model import ModelConfig
from gnano.model.folder import WEIGHTS, read_json
from gnano.tokenizer import Tokenizer
from gnano.utils.output import check_output

INDEX = f"{WEIGHTS}.index.json"
PICKLED = "pytorch_model.bin"
COMPUTED = "rotary_emb.inv_freq"  # older files hold what every reader computes itself
NO_HINTS = Hints()


def import_model(
    path: Path, out: Path, hints: Hints = NO_HINTS, tokenizer: Path | None = None
) -> Foreign:
    """Make the folder `out` of a file or folder; returns what was found in it.

    `hints` and `tokenizer` are for files of tensors alone. Raises ValueError or OSError, in a
    sentence, for what is damaged, hostile or no Llama that we can run.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is nothing at {path}.")
    check_output(out, "--out", [path, *([tokenizer] if tokenizer else [])])
    if path.is_file() and path.suffix == ".gguf":
        found = read_gguf(path)
    elif path.is_file():
        found = read_lone_file(path, hints, tokenizer)
    else:
        found = _read_folder(path, tokenizer)
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
    files = _files(folder)
    for file in files:
        tensors |= read_tensors_of(file)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COMPUTED)}
    if tied and "model.embed_tokens.weight" in tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    words = tokenizer or folder
    ids = Tokenizer.load(words)
    check_vocabulary(ids, config, words)
    size = sum(file.stat().st_size for file in files)
    return Foreign(config, checked(tensors, config, folder, size), ids, words)


def _files(folder: Path) -> list[Path]:
    """Those that hold the weights."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict):
            raise ValueError(f"{folder / INDEX} lists no files (weight_map).")
        names = sorted(set(map(str, listed.values())))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{folder / INDEX} names {name!r}, which is no file beside it.")
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} lacks {name}, which its list names.")
        return [folder / name for name in names]
    if (folder / PICKLED).is_file():
        return [folder / PICKLED]
    raise FileNotFoundError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}.")
