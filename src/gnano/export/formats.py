"""Exports a checkpoint: each format is written atomically and comes with a line that loads it.

pt           the published names, with RoPE on neighboring channels, for the published class
safetensors  the tensors under Hugging Face's names, with the shape beside them
folder       a Hugging Face folder in another dtype, for transformers, vLLM and mlx-lm
onnx         see `onnx`
gguf         see `gguf_file`
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnano.export.gguf_file import export_gguf
from gnano.export.kinds import Dtype, Format, chosen
from gnano.model.config import PRESETS, ModelConfig
from gnano.model.folder import WEIGHTS, read_config, read_tensors, save_tensors, write_config
from gnano.model.names import to_published
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.appearing import new_file, new_folder
from gnano.train.merging import copy_words
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.json_text import json_text
from gnano.utils.output import check_output
from gnano.utils.shell import shell_command

TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PT = {"fp32": "model_latest.pt", "bf16": "model_bf16.pt"}  # the published names
SHAPE = "gnano.shape"  # key of the shape in the metadata of a file of tensors


@dataclass(frozen=True)
class Source:
    """A model to export: a checkpoint of ours, or any folder of a Llama that we can run."""

    folder: Path  # a Hugging Face folder
    config: ModelConfig
    tensors: Mapping[str, Tensor]  # under Hugging Face's names; read from the disk when used
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Exported:
    path: Path  # a file or a folder
    size: int  # bytes
    how: str  # to load it


def open_source(path: Path) -> Source:
    """Open a run's newest checkpoint, a checkpoint, or a model folder.

    Raises FileNotFoundError or ValueError, in a sentence, if the path is none of them.
    """
    folder = find_checkpoint(path)
    config = read_config(folder)
    return Source(folder, config, read_tensors(folder, config), Tokenizer.load(folder))


def export(
    checkpoint: Path,
    to: Format,
    dtype: Dtype = "auto",
    out: Path | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a run's newest checkpoint, or another, as `to`; by default below `exported/`.

    Raises ValueError or OSError, in a sentence, for a dtype that the format does not have, a path
    that is no checkpoint, and an output that exists.
    """
    precision = chosen(to, dtype)
    check_output(out or Path("exported"), "--out", [checkpoint])
    source = open_source(checkpoint)
    path = out or _default_path(source.folder, to, precision)
    new = new_folder if to in ("folder", "onnx") else new_file
    try:
        with new(path) as partial:
            _write(source, to, precision, partial, show)
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:  # its message is specific
            raise
        raise OSError(
            f"{path} could not be written whole ({error}): is there room for it? Free some space "
            f"and run the same command again."
        ) from None
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return Exported(path, sum(file.stat().st_size for file in files), _load_line(source, to, path))


def _write(
    source: Source, to: Format, precision: Dtype, path: Path, show: Callable[[str], None]
) -> None:
    match to:
        case "folder":
            write_config(source.config, TORCH[precision], path, source.tokenizer.end_of_text)
            save_tensors(_cast(source, precision), path / WEIGHTS)
            copy_words([source.folder], path)
        case "safetensors":
            save_tensors(_cast(source, precision), path, {SHAPE: json_text(asdict(source.config))})
        case "pt":
            _write_pt(source, TORCH[precision], path)
        case "gguf":
            export_gguf(source, path, precision)
        case "onnx":
            from gnano.export.onnx import export_onnx

            export_onnx(source, path, precision, show)


def _cast(source: Source, precision: Dtype) -> dict[str, Tensor]:
    return {name: tensor.to(TORCH[precision]) for name, tensor in source.tensors.items()}


def _write_pt(source: Source, dtype: torch.dtype, path: Path) -> None:
    """Write a state dict that `GPT(…).load_state_dict` of the published class takes.

    The shape is in the state dict's metadata, where PyTorch keeps what is not a tensor.
    """
    state: Any = OrderedDict()
    state._metadata = {SHAPE: json_text(asdict(source.config))}
    for name, tensor in source.tensors.items():
        published_name, permuted = to_published(name, tensor, source.config)
        state[published_name] = permuted.to(dtype)
    try:
        torch.save(state, path)
    except RuntimeError as error:  # of its C++ code, which hides the system's reason
        raise OSError(str(error).splitlines()[0]) from None


def _default_path(folder: Path, to: Format, precision: Dtype) -> Path:
    folder = folder.resolve()
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    suffix = {"safetensors": ".safetensors", "folder": "", "onnx": "-onnx", "gguf": ".gguf"}
    name = PT[precision] if to == "pt" else f"{run.name}-{precision}{suffix[to]}"
    return Path("exported", run.name, name)


def _load_line(source: Source, to: Format, path: Path) -> str:
    """Return a line of Python or of a shell that loads the exported model."""
    if to == "gguf":
        prompt = ("-p", "Once upon a time", "-n", "60", "-no-cnv")
        return shell_command("llama-cli", "-m", path, *prompt)
    # a JSON string is a Python string too
    name = json.dumps(str(path / "model.onnx" if to == "onnx" else path), ensure_ascii=False)
    if to == "folder":
        return f"AutoModelForCausalLM.from_pretrained({name})"
    if to == "onnx":
        return f"onnxruntime.InferenceSession({name})"
    preset = next((name for name, shape in PRESETS.items() if shape == source.config), None)
    model = f'GPT.from_config(PRESETS["{preset}"])' if preset else "GPT(…)"
    model = "GPT()" if preset == "1b" else model
    state = f"torch.load({name}, weights_only=True)" if to == "pt" else f"load_file({name})"
    return f"model = {model}; model.load_state_dict({state})"
