"""The formats and dtypes of `gnano export`."""

from typing import Literal

ExportFormat = Literal["pt", "safetensors", "folder", "onnx", "gguf"]
ExportDtype = Literal["auto", "fp32", "bf16", "fp16", "q8_0", "q4_0", "int8", "int4"]

# the first of a format is its default
FORMAT_DTYPES: dict[ExportFormat, tuple[ExportDtype, ...]] = {
    "pt": ("fp32", "bf16"),
    "safetensors": ("bf16", "fp32", "fp16"),
    "folder": ("bf16", "fp32", "fp16"),
    "onnx": ("fp32", "fp16", "int8", "int4"),
    "gguf": ("bf16", "fp32", "fp16", "q8_0", "q4_0"),
}


def resolve_export_dtype(export_format: ExportFormat, dtype: ExportDtype) -> ExportDtype:
    """Return the dtype to write; raise ValueError for one that the format does not support."""
    supported = FORMAT_DTYPES[export_format]
    if dtype == "auto":
        return supported[0]
    if dtype not in supported:
        raise ValueError(
            f"{export_format} is written as {', '.join(supported)}, not as {dtype} (--dtype)."
        )
    return dtype
