"""What can be exported, and in which precision? A command's choices, without torch."""

from typing import Literal

ExportFormat = Literal["pt", "safetensors", "folder", "onnx", "gguf"]
ExportDtype = Literal["auto", "fp32", "bf16", "fp16", "q8_0", "q4_0", "int8", "int4"]

# auto is the first
FORMAT_DTYPES: dict[ExportFormat, tuple[ExportDtype, ...]] = {
    "pt": ("fp32", "bf16"),
    "safetensors": ("bf16", "fp32", "fp16"),
    "folder": ("bf16", "fp32", "fp16"),
    "onnx": ("fp32", "fp16", "int8", "int4"),
    "gguf": ("bf16", "fp32", "fp16", "q8_0", "q4_0"),
}


def resolve_export_dtype(export_format: ExportFormat, dtype: ExportDtype) -> ExportDtype:
    """The precision to write; raises ValueError for one that the format has not."""
    known = FORMAT_DTYPES[export_format]
    if dtype == "auto":
        return known[0]
    if dtype not in known:
        raise ValueError(
            f"{export_format} is written as {', '.join(known)}, not as {dtype} (--dtype)."
        )
    return dtype
