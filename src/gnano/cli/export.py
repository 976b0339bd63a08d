"""The command `gnano export`: writes a checkpoint in another format."""

from contextlib import closing
from pathlib import Path

from gnano.cli.args import ModelArg, model_folder
from gnano.config.inference_config import ExportDtype, ExportFormat
from gnano.utils.terminal import StatusLine, echo


def export(
    checkpoint: ModelArg, to: ExportFormat, dtype: ExportDtype = "auto", out: Path | None = None
) -> None:
    """Write a checkpoint as a file or folder for other programs.

    command examples:
      gnano export runs/1b --to pt                     the published names, fp32; also bf16
      gnano export runs/1b --to safetensors            bf16, half the size
      gnano export runs/1b --to folder --dtype bf16    for transformers, vLLM, mlx-lm
      gnano export runs/1b --to gguf --dtype q8_0      for llama.cpp, Ollama, LM Studio
      gnano export runs/1b --to onnx --dtype int4      for onnxruntime

    A checkpoint is a Hugging Face folder already, in fp32. For stronger quantization of a GGUF
    file use llama.cpp: llama-quantize 1b-bf16.gguf 1b-q4.gguf Q4_K_M.

    Args:
        to: The format.
        dtype: pt: fp32, bf16; safetensors and folder: bf16, fp32, fp16; onnx: fp32, fp16, int8,
            int4; gguf: bf16, fp32, fp16, q8_0, q4_0. The first is auto.
        out: The file or folder to write; by default below exported/.
    """
    from gnano.export.formats import export_model

    with closing(StatusLine()) as line:
        result = export_model(model_folder(checkpoint), to, dtype, out, line.update)
    echo(f"{result.path}: {result.size_bytes / 1e9:.3f} GB")
    echo(result.load_snippet)
