"""One checkpoint, many readers: each format written whole or not at all, and how to load it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from gnano.export.gguf_file import export_gguf
from gnano.export.hugging_face import export_folder, export_safetensors
from gnano.export.kinds import Dtype, Format, chosen
from gnano.export.published import export_pt
from gnano.export.source import Source, open_source
from gnano.model import PRESETS
from gnano.train import new_file, new_folder
from gnano.utils.output import check_output
from gnano.utils.shell import shell_command

TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PT = {"fp32": "model_latest.pt", "bf16": "model_bf16.pt"}  # the published names


@dataclass(frozen=True)
class Exported:
    path: Path  # a file or a folder
    size: int  # bytes
    how: str  # to load it


def export(
    checkpoint: Path,
    to: Format,
    dtype: Dtype = "auto",
    out: Path | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a run's newest checkpoint, or another, as `to`; by default below `exported/`.

    Raises ValueError or OSError, in a sentence, for a dtype that the format has not, what is no
    checkpoint, and a place where something is already.
    """
    precision = chosen(to, dtype)
    check_output(out or Path("exported"), "--out", [checkpoint])
    source = open_source(checkpoint)
    path = out or _place(source.folder, to, precision)
    try:
        _write(source, to, precision, path, show)
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:  # it says what it is
            raise
        raise OSError(
            f"{path} could not be written whole ({error}): is there room for it? Free some space "
            f"and run the same command again."
        ) from None
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return Exported(path, sum(file.stat().st_size for file in files), _how(source, to, path))


def _write(
    source: Source, to: Format, precision: Dtype, path: Path, show: Callable[[str], None]
) -> None:
    if to in ("folder", "onnx"):
        with new_folder(path) as partial:
            if to == "folder":
                export_folder(source, partial, TORCH[precision])
            else:
                from gnano.export.onnx import export_onnx

                export_onnx(source, partial, precision, show)
        return
    with new_file(path) as partial:
        if to == "gguf":
            export_gguf(source, partial, precision)
        elif to == "pt":
            export_pt(source, partial, TORCH[precision])
        else:
            export_safetensors(source, partial, TORCH[precision])


def _place(folder: Path, to: Format, precision: Dtype) -> Path:
    folder = folder.resolve()
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    name = {
        "pt": PT.get(precision, ""),
        "safetensors": f"{run.name}-{precision}.safetensors",
        "folder": f"{run.name}-{precision}",
        "onnx": f"{run.name}-{precision}-onnx",
        "gguf": f"{run.name}-{precision}.gguf",
    }
    return Path("exported", run.name, name[to])


def _how(source: Source, to: Format, path: Path) -> str:
    """A line that loads it."""
    config = source.config
    shape = f'GPT.from_config(PRESETS["{_preset(source)}"])' if _preset(source) else "GPT(…)"
    if config == PRESETS["1b"]:
        shape = "GPT()"
    name = json.dumps(str(path), ensure_ascii=False)  # as Python writes it too
    model = json.dumps(str(path / "model.onnx"), ensure_ascii=False)
    return {
        "pt": f"model = {shape}; model.load_state_dict(torch.load({name}, weights_only=True))",
        "safetensors": f"model = {shape}; model.load_state_dict(load_file({name}))",
        "folder": f"AutoModelForCausalLM.from_pretrained({name})",
        "onnx": f"onnxruntime.InferenceSession({model})",
        "gguf": shell_command(
            "llama-cli", "-m", path, "-p", "Once upon a time", "-n", "60", "-no-cnv"
        ),
    }[to]


def _preset(source: Source) -> str | None:
    return next((name for name, shape in PRESETS.items() if shape == source.config), None)
