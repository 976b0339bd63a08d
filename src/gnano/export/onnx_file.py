"""Exports a checkpoint as ONNX: a graph that onnxruntime runs without PyTorch.

    meta-device model ─▶ graph ─┬─ + the checkpoint's tensors, one at a time ─▶ model.onnx
                                └─ int8, int4: onnxruntime's quantizer          model.onnx.data

    input_ids ─▶ embedding ─▶ blocks ─▶ norm ─▶ head ─▶ logits
    position_ids ─▶ rotation ──┘│▲
    attention_mask ─▶ mask ─────┘│└─ past_key_values.N ─▶ + the new ones ─▶ present.N

    fp32   the model as it is
    fp16   half the size, for GPUs (a CPU computes it in fp32, with casts around each product);
           norms and rotary positions are computed in fp32, keys and values are kept in fp16
    int8   the matrices in 8 or 4 bits, for CPUs, with a scale and a zero point per 32 inputs, and
    int4   multiplied in 8 bits; norms, attention, keys and values in fp32, the embedding in fp16

Logits are fp32 in each. The blocks are those of `gnano.model`, with matrices transposed to
[in, out], as ONNX multiplies them, and attention written out. Parameters are on the meta device, so
a graph of a billion weights takes no memory until they are written.
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnano.checkpoint.export_weights import copy_tokenizer_files
from gnano.config.model_config import ModelConfig
from gnano.export.tensor_file import ExportSource
from gnano.model.attention import LayerCache
from gnano.model.linear import Linear
from gnano.model.rope import Rope, rope_table
from gnano.model.transformer import GPT, Block
from gnano.utils.platform_support import require

if TYPE_CHECKING:
    import onnx_ir

OPSET = 18
GRAPH_FILE = "model.onnx"
ROPE_TABLES = ("cos", "sin")  # buffers of the rotary positions, [block_size, E/2] in fp32
QUANTIZATION_BITS = {"int8": 8, "int4": 4}
QUANTIZATION_GROUP_SIZE = 32  # inputs of a matrix that share a scale and a zero point
# onnxruntime's level for products in 8 bits: in fp32 a CPU has no kernel for int8
MATMUL_ACCURACY_LEVEL = 4


def export_onnx(
    source: ExportSource,
    folder: Path,
    dtype: str,
    on_progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Fill a folder with the model as ONNX, its config, tokenizer and chat template.

    Inputs are `input_ids`, `attention_mask`, `position_ids` and `past_key_values.N.key` and
    `.value`, which may be empty; outputs `logits` and `present.N.key` and `.value`: the names of
    optimum and transformers.js. Batch size, length and past are free; a row may be padded on its
    left. Raises ValueError if a package is missing.
    """
    for package in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
        require(package, "onnx", f"ONNX export needs {package}")
    path = folder / GRAPH_FILE
    with _silence_exporter():
        on_progress("Tracing the model")
        graph = _build_onnx_graph(source, dtype)
        if dtype not in QUANTIZATION_BITS:
            _write_onnx(graph, path, on_progress)
        else:
            # in the output folder: a billion weights are 4 GB, and /tmp may be in memory
            with tempfile.TemporaryDirectory(dir=folder) as full:
                full_path = Path(full, GRAPH_FILE)
                _write_onnx(graph, full_path, on_progress)
                on_progress(f"Quantizing to {dtype}")
                quantized = _quantize_matrices(full_path, QUANTIZATION_BITS[dtype])
                _write_onnx(quantized, path, on_progress)
    for name in ("config.json", "generation_config.json"):
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    copy_tokenizer_files([source.folder], folder)


class TransposedLinear(nn.Module):
    """A linear layer whose weight is [in, out]."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class ConcatKVCache(LayerCache):
    """Keys and values of one layer, which grow with each append."""

    def append(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all of them."""
        self.k_BKTE = torch.cat((self.k_BKTE, k_BKTE), dim=2)
        self.v_BKTE = torch.cat((self.v_BKTE, v_BKTE), dim=2)
        return self.k_BKTE, self.v_BKTE


def grouped_attention(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Return the attention's output [B, H, T, E], with a group's queries as rows of one product.

    Its keys are read once and not copied: a step of the `1b` shape in int4 after 900 tokens takes
    33 ms on two cores instead of 70, of which 30 are the weights.
    """
    assert mask is not None and not dropout
    B, H, T, E = q_BHTE.shape
    K, S = k_BKTE.shape[1:3]  # S: keys so far
    G = H // K  # queries of a group: N is G·T
    q_BKNE = (q_BHTE * E**-0.5).reshape(B, K, G * T, E)
    scores_BKGTS = (q_BKNE @ k_BKTE.transpose(2, 3)).view(B, K, G, T, S)
    masked = torch.finfo(q_BHTE.dtype).min
    scores_BKGTS = torch.where(mask[:, :, None], scores_BKGTS, masked)
    weights_BKGTS = scores_BKGTS.softmax(4, dtype=torch.float32).to(q_BHTE.dtype)
    return (weights_BKGTS.view(B, K, G * T, S) @ v_BKTE).view(B, H, T, E)


class OnnxModel(nn.Module):
    """The language model as a pure function of its inputs; parameters keep their names."""

    def __init__(
        self, config: ModelConfig, activation_dtype: torch.dtype, embedding_dtype: torch.dtype
    ) -> None:
        super().__init__()
        gpt = GPT.from_config(config)
        self.model, self.lm_head = gpt.model, gpt.lm_head
        for block in self.model.layers:
            assert isinstance(block, Block)
            block.self_attn.attend = grouped_attention
        for name, layer in list(self.named_modules()):
            if isinstance(layer, Linear):
                # the head without the rows that pad it in our engine
                transposed = TransposedLinear(
                    layer.in_features, layer.out_features, layer.bias is not None
                )
                self.set_submodule(name, transposed)
        self.to(activation_dtype)
        self.activation_dtype = activation_dtype
        self.model.embed_tokens.to(embedding_dtype)
        for name in ROPE_TABLES:
            self.register_buffer(name, torch.empty(config.block_size, config.head_size // 2))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, ...]:
        """Return logits [B, T, V] in fp32, then keys and values [B, K, past + T, E] per layer."""
        # causal over the last T of S positions, without padding
        T, S = input_ids.shape[1], attention_mask.shape[1]
        key_S, query_T = (torch.arange(n, device=attention_mask.device) for n in (S, T))
        is_past_TS = key_S <= query_T[:, None] + (S - T)
        mask_B1TS = is_past_TS & attention_mask.bool()[:, None, None]
        cos_BTE, sin_BTE = (
            F.embedding(position_ids, self.get_buffer(name)) for name in ROPE_TABLES
        )
        rope = Rope(cos_BTE, sin_BTE)
        x_BTD = self.model.embed_tokens(input_ids).to(self.activation_dtype)
        present: list[Tensor] = []
        for block, (k_BKTE, v_BKTE) in zip(self.model.layers, past, strict=True):
            cache = ConcatKVCache(k_BKTE, v_BKTE)
            x_BTD = block(x_BTD, rope, cache, mask_B1TS)
            present += cache.k_BKTE, cache.v_BKTE
        return self.lm_head(self.model.norm(x_BTD)).float(), *present


def trace_model(
    config: ModelConfig, activation_dtype: torch.dtype, embedding_dtype: torch.dtype
) -> "onnx_ir.Model":
    """Return the graph; its initializers have names, dtypes and shapes but no values yet."""
    from torch.export import Dim

    B, T, P = 2, 3, 5  # example sizes of batch, length and past; all three are free in the graph
    batch, length = Dim("batch_size"), Dim("sequence_length")
    past_length, total_length = Dim("past_sequence_length"), Dim("total_sequence_length")
    ids = {0: batch, 1: length}
    cached = {0: batch, 2: past_length}
    layers = [f"{n}.{part}" for n in range(config.n_layer) for part in ("key", "value")]
    inputs = ["input_ids", "attention_mask", "position_ids"]
    with torch.device("meta"):
        model = OnnxModel(config, activation_dtype, embedding_dtype).eval()
        shape = B, config.n_kv_head, P, config.head_size
        # distinct tensors: one that is passed twice would become one input
        empty = [torch.empty(shape, dtype=activation_dtype) for _ in range(2 * config.n_layer)]
        program = torch.onnx.export(
            model,
            kwargs={
                "input_ids": torch.zeros(B, T, dtype=torch.long),
                "attention_mask": torch.ones(B, P + T, dtype=torch.long),
                "position_ids": torch.zeros(B, T, dtype=torch.long),
                "past": list(zip(empty[::2], empty[1::2], strict=True)),
            },
            dynamic_shapes={
                "input_ids": ids,
                "attention_mask": {0: batch, 1: total_length},
                "position_ids": ids,
                "past": [(cached, cached)] * config.n_layer,
            },
            input_names=[*inputs, *(f"past_key_values.{layer}" for layer in layers)],
            output_names=["logits", *(f"present.{layer}" for layer in layers)],
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # it reads values, and there are none
            verbose=False,
        )
    assert program is not None
    return program.model


def _build_onnx_graph(source: ExportSource, dtype: str) -> "onnx_ir.Model":
    """Return the graph; its weights are read from the checkpoint when they are written."""
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript.optimizer import optimize_ir

    activations = torch.float16 if dtype == "fp16" else torch.float32
    # fp16 is finer than the 4 or 8 bits of the matrices; fp32 would be a third of the file
    embedding = torch.float32 if dtype == "fp32" else torch.float16
    graph = trace_model(source.config, activations, embedding)
    weights = dict(graph.graph.initializers)
    for weight in weights.values():
        weight.const_value = None  # on the meta device: nothing to fold
    optimize_ir(graph)
    ClearMetadataAndDocStringPass()(graph)  # paths of this machine's source files
    for name, weight in weights.items():
        shape, weight_dtype = weight.shape, weight.dtype
        assert shape is not None and weight_dtype is not None
        read = partial(_read_weight, source, name, shape.numpy(), weight_dtype)
        weight.const_value = onnx_ir.LazyTensor(read, weight_dtype, shape, name=name)
    return graph


def _read_weight(
    source: ExportSource, name: str, shape: tuple[int, ...], dtype: "onnx_ir.DataType"
) -> "onnx_ir.TensorProtocol":
    import onnx_ir

    if name in ROPE_TABLES:
        config, cpu = source.config, torch.device("cpu")
        table = rope_table(config, cpu)
        tensor = table[ROPE_TABLES.index(name)]
    else:
        tensor = source.tensors[name]
        if name.endswith(("proj.weight", "lm_head.weight")):
            tensor = tensor.T
    assert tuple(tensor.shape) == shape, name
    tensor = tensor.to(getattr(torch, dtype.numpy().name))
    return onnx_ir.tensor(tensor.contiguous().numpy())


def _write_onnx(graph: "onnx_ir.Model", path: Path, on_progress: Callable[[str], None]) -> None:
    import onnx_ir

    def show(_: "onnx_ir.TensorProtocol", info: "onnx_ir.external_data.CallbackInfo") -> None:
        on_progress(f"{path.name}: weight {info.index + 1:,} of {info.total:,}")

    onnx_ir.save(graph, path, external_data=f"{path.name}.data", callback=show)


def _quantize_matrices(path: Path, bits: int) -> "onnx_ir.Model":
    """Return the graph with its matrices in `bits` bits; other weights stay in the source file."""
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
