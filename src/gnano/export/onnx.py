"""A checkpoint as ONNX: a graph that onnxruntime runs without PyTorch, on many machines.

    graph (onnx_model) + the checkpoint's tensors, one at a time ─▶ model.onnx
      int8, int4: onnxruntime's quantizer between the two            model.onnx.data

    fp32   the model as it is
    fp16   half the size, for GPUs (a CPU computes it in fp32, with casts around each product);
           norms and rotary positions are computed in fp32, keys and values are kept in fp16
    int8   the matrices in 8 or 4 bits, for CPUs, each 32 inputs with a scale and a zero of their
    int4   own, multiplied in 8 bits; norms, attention, keys and values in fp32, the embedding in
           fp16

Logits are fp32 in each. The folder has what a reader needs beside the graph: config,
tokenizer, chat template.
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gnano.export.onnx_model import ROPE_TABLES, trace_model
from gnano.model.rope import rope_table
from gnano.train.merging import copy_tokenizer_files

if TYPE_CHECKING:
    import onnx_ir

    from gnano.export.formats import ExportSource

GRAPH_FILE = "model.onnx"
QUANTIZATION_BITS = {"int8": 8, "int4": 4}
QUANTIZATION_GROUP_SIZE = 32  # inputs of a matrix that share a scale and a zero
MATMUL_ACCURACY_LEVEL = (
    4  # onnxruntime's level for products in 8 bits: in fp32 a CPU has no kernel for int8
)


def export_onnx(
    source: "ExportSource",
    folder: Path,
    dtype: str,
    on_progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Fill a folder with the model as ONNX.

    Inputs are `input_ids`, `attention_mask`, `position_ids` and `past_key_values.N.key` and
    `.value`, which may be empty; outputs `logits` and `present.N.key` and `.value`: the names of
    optimum and transformers.js. Batch, length and past are free; a row may be padded at its left.

    Raises ValueError, in a sentence, where a package is missing.
    """
    _check_packages()
    path = folder / GRAPH_FILE
    with _silence_exporter():
        on_progress("Tracing the model")
        graph = _build_onnx_graph(source, dtype)
        if dtype not in QUANTIZATION_BITS:
            _write_onnx(graph, path, on_progress)
        else:
            # in the output folder: a billion weights are 4 GB, and /tmp may be in memory
            with tempfile.TemporaryDirectory(dir=folder) as full:
                _write_onnx(graph, Path(full, GRAPH_FILE), on_progress)
                on_progress(f"Quantizing to {dtype}")
                _write_onnx(
                    _quantize_matrices(Path(full, GRAPH_FILE), QUANTIZATION_BITS[dtype]),
                    path,
                    on_progress,
                )
    for name in ("config.json", "generation_config.json"):
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    copy_tokenizer_files([source.folder], folder)


def _check_packages() -> None:
    try:
        for package in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
            import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"ONNX export needs {error.name}: pip install 'auto-g-nano[onnx]'."
        ) from None


def _build_onnx_graph(source: "ExportSource", dtype: str) -> "onnx_ir.Model":
    """Return the graph; its weights are read from the checkpoint when they are written."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript.optimizer import optimize_ir

    activations = torch.float16 if dtype == "fp16" else torch.float32
    # what it is rounded to in 4 or 8 bits elsewhere is coarser, and it would be a third of the file
    embedding = torch.float32 if dtype == "fp32" else torch.float16
    graph = trace_model(source.config, activations, embedding)
    weights = dict(graph.graph.initializers)
    for weight in weights.values():
        weight.const_value = None  # on the meta device: nothing to fold
    optimize_ir(graph)
    ClearMetadataAndDocStringPass()(graph)  # paths of this machine's source files
    for name, weight in weights.items():
        weight.const_value = _lazy_weight_tensor(source, name, weight)
    return graph


def _lazy_weight_tensor(
    source: "ExportSource", name: str, weight: "onnx_ir.Value"
) -> "onnx_ir.LazyTensor":
    import onnx_ir

    shape, dtype = weight.shape, weight.dtype
    assert shape is not None and dtype is not None

    def read() -> "onnx_ir.TensorProtocol":
        if name in ROPE_TABLES:
            config = source.config
            cpu = torch.device("cpu")
            table = rope_table(config.head_size, config.block_size, config.rope_theta, cpu)
            tensor = table[ROPE_TABLES.index(name)]
        else:
            tensor = source.tensors[name]
            if "proj" in name or "lm_head" in name:
                tensor = tensor.T
        assert tuple(tensor.shape) == shape.numpy(), name
        tensor = tensor.to(getattr(torch, dtype.numpy().name))
        return onnx_ir.tensor(tensor.contiguous().numpy())

    return onnx_ir.LazyTensor(read, dtype, shape, name=name)


def _write_onnx(graph: "onnx_ir.Model", path: Path, on_progress: Callable[[str], None]) -> None:
    import onnx_ir

    def count(_: "onnx_ir.TensorProtocol", info: "onnx_ir.external_data.CallbackInfo") -> None:
        on_progress(f"{path.name}: weight {info.index + 1:,} of {info.total:,}")

    onnx_ir.save(graph, path, external_data=f"{path.name}.data", callback=count)


def _quantize_matrices(path: Path, bits: int) -> "onnx_ir.Model":
    """Return the graph with its matrices in `bits` bits; other weights remain in the file read."""
    import onnx
    import onnx_ir
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    graph = onnx.load(path, load_external_data=False)
    for weight in graph.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":  # absolute: so the quantizer maps one matrix at a time
                entry.value = str(path.parent.resolve() / entry.value)
    quantizer = MatMulNBitsQuantizer(
        graph, bits, QUANTIZATION_GROUP_SIZE, accuracy_level=MATMUL_ACCURACY_LEVEL
    )
    quantizer.process()
    model: onnx.ModelProto = quantizer.model.model
    return onnx_ir.from_proto(model)


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Suppress the libraries' messages, and keep them from configuring the root logger."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
