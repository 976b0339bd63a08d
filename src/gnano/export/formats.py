"""Exports a checkpoint: each format is written atomically and comes with a line that loads it.

pt           the published names, with RoPE on neighboring channels, for the published class
safetensors  the tensors under Hugging Face's names, with the shape as metadata
folder       a Hugging Face folder in another dtype, for transformers, vLLM and mlx-lm
onnx         see `onnx_file`
gguf         see `gguf_file`
"""

import json
from collections import ChainMap, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gnano.checkpoint.export_weights import copy_tokenizer_files
from gnano.checkpoint.run_checkpoints import model_name
from gnano.config.inference_config import ExportDtype, ExportFormat, resolve_export_dtype
from gnano.config.model_config import PRESETS, SHAPE
from gnano.export.gguf_file import export_gguf
from gnano.export.tensor_file import CONFIG_METADATA_KEY, ExportSource, load_export_source
from gnano.model.hf_io import (
    EMBEDDING_KEY,
    LM_HEAD_KEY,
    WEIGHTS_NAME,
    save_config,
    save_tensors,
)
from gnano.model.tensor_names import convert_to_published
from gnano.utils.files import (
    check_output_path,
    create_dir_atomically,
    create_file_atomically,
    dump_json,
)
from gnano.utils.formatting import format_shell_command

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PUBLISHED_FILE_NAMES = {"fp32": "model_latest.pt", "bf16": "model_bf16.pt"}
FORMAT_SUFFIXES = {"safetensors": ".safetensors", "folder": "", "onnx": "-onnx", "gguf": ".gguf"}


@dataclass(frozen=True)
class ExportResult:
    """What was exported, and how to load it."""

    path: Path  # a file or a folder
    size_bytes: int
    load_snippet: str  # a line of Python or of a shell


def export_model(
    checkpoint: Path,
    export_format: ExportFormat,
    dtype: ExportDtype = "auto",
    out: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Write a run's newest checkpoint, or another model, by default below `exported/`.

    Raises ValueError or OSError for a dtype that the format does not have, a path that is not a
    checkpoint, and an output that exists.
    """
    dtype = resolve_export_dtype(export_format, dtype)
    check_output_path(out or Path("exported"), "--out", [checkpoint])
    source = load_export_source(checkpoint)
    folder = source.folder.resolve()
    model = model_name(folder)
    name = f"{model}-{dtype}{FORMAT_SUFFIXES.get(export_format, '')}"
    if export_format == "pt":
        name = PUBLISHED_FILE_NAMES[dtype]
    path = out or Path("exported", model, name)
    is_folder = export_format in ("folder", "onnx")
    try:
        with (create_dir_atomically if is_folder else create_file_atomically)(path) as partial:
            _write_format(source, export_format, dtype, partial, on_progress)
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:  # its message is specific
            raise
        raise OSError(
            f"{path} could not be written completely ({error}): is the disk full? Free some space "
            f"and run the same command again."
        ) from None
    files = [file for file in path.rglob("*") if file.is_file()] if is_folder else [path]
    size = sum(file.stat().st_size for file in files)
    return ExportResult(path, size, _load_snippet(source, export_format, path))


def _write_format(
    source: ExportSource,
    export_format: ExportFormat,
    dtype: ExportDtype,
    path: Path,
    on_progress: Callable[[str], None],
) -> None:
    if export_format in ("onnx", "pt"):
        source = _with_own_head(source)
    if export_format == "gguf":
        export_gguf(source, path, dtype)
        return
    if export_format == "onnx":
        from gnano.export.onnx_file import export_onnx

        export_onnx(source, path, dtype, on_progress)
        return
    torch_dtype = TORCH_DTYPES[dtype]
    metadata = {CONFIG_METADATA_KEY: dump_json(source.config.to_dict())}
    if export_format == "pt":
        _require_plain_llama(source)
        # a state dict for `load_state_dict` of the published class, with the shape in the
        # state dict's metadata, where PyTorch keeps what is not a tensor
        state: Any = OrderedDict()
        state._metadata = metadata
        for name, tensor in source.tensors.items():
            published_name, permuted = convert_to_published(name, tensor, source.config)
            state[published_name] = permuted.to(torch_dtype)
        try:
            torch.save(state, path)
        except RuntimeError as error:  # from its C++ code, which hides the system's reason
            raise OSError(str(error).splitlines()[0]) from None
        return
    tensors = {name: tensor.to(torch_dtype) for name, tensor in source.tensors.items()}
    if export_format == "safetensors":
        save_tensors(tensors, path, metadata)
        return
    tokenizer = source.tokenizer
    save_config(source.config, torch_dtype, path, tokenizer.end_of_text_id, tokenizer.files)
    save_tensors(tensors, path / WEIGHTS_NAME)
    copy_tokenizer_files([source.folder], path)


def _with_own_head(source: ExportSource) -> ExportSource:
    """Return the model with its embedding's matrix as its head's, too."""
    if not source.config.tie_embeddings:
        return source
    head = {LM_HEAD_KEY: source.tensors[EMBEDDING_KEY]}
    config = replace(source.config, tie_embeddings=False)
    tensors = ChainMap(head, source.tensors)  # type: ignore[arg-type]  # it is only read
    return replace(source, config=config, tensors=tensors)


def _require_plain_llama(source: ExportSource) -> None:
    """Raise ValueError for a model that the published class cannot load."""
    if others := [key for key in source.config.to_dict() if key not in SHAPE]:
        raise ValueError(
            f"gnano writes pt files of plain Llama models only, and {source.folder} has "
            f"{', '.join(others)}: export it as a folder (--to folder)."
        )


def _load_snippet(source: ExportSource, export_format: ExportFormat, path: Path) -> str:
    """Return a line of Python or of a shell that loads the exported model."""
    file = path / "model.onnx" if export_format == "onnx" else path
    name = json.dumps(str(file), ensure_ascii=False)  # a JSON string is a Python string too
    preset = next((name for name, shape in PRESETS.items() if shape == source.config), None)
    known = {None: "GPT(…)", "1b": "GPT()"}
    model = known.get(preset, f'GPT.from_config(PRESETS["{preset}"])')
    prompt = ("-p", "Once upon a time", "-n", "60", "-no-cnv")
    snippets: dict[ExportFormat, str] = {
        "gguf": format_shell_command("llama-cli", "-m", path, *prompt),
        "folder": f"AutoModelForCausalLM.from_pretrained({name})",
        "onnx": f"onnxruntime.InferenceSession({name})",
        "pt": f"model = {model}; model.load_state_dict(torch.load({name}, weights_only=True))",
        "safetensors": f"model = {model}; model.load_state_dict(load_file({name}))",
    }
    return snippets[export_format]
