"""Programs for a GPU that computes nothing; each prints what the GPU was asked to do, as JSON.

    python -m tests.gpu.programs train_step '{"layers": 2, "precision": "bf16"}'

`fake_gpu.py` starts them with `shim.c` preloaded, in a Python that has a CUDA build of PyTorch.
"""

import ctypes
import gc
import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule
from torch.utils._python_dispatch import TorchDispatchMode

from gnano.config.inference_config import SamplingParams
from gnano.config.model_config import PRESETS
from gnano.config.recipe import Recipe
from gnano.config.train_config import OptimizerConfig, TrainConfig
from gnano.data.packed_dataset import Batch
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.engine import Engine
from gnano.infer.graph_decode import new_decoder
from gnano.infer.request import Request
from gnano.infer.weight_formats import fuse_projections, quantize_model
from gnano.model import attention
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.estimate import estimate_memory
from gnano.train.train_step import PrefetchLoader, TrainState
from gnano.utils.platform_support import use_deterministic_kernels


class Calls(Counter[str]):
    """How often the driver was called, by what for: "KERNEL …", "GEMM …", "SYNC …", "COPY …"."""

    @classmethod
    def during(cls, function: Callable[[], Any]) -> "Calls":
        shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        shim.shim_reset()
        function()
        with tempfile.NamedTemporaryFile() as file:
            shim.shim_dump(file.name.encode())
            lines = Path(file.name).read_text("utf-8").splitlines()
        rows = (line.split("\t", 2) for line in lines)
        return cls({name: int(number) for number, _, name in rows})

    def matching(self, part: str) -> int:
        return sum(number for name, number in self.items() if part in name)


class BackendFoundError(Exception):
    """Carries the name of the attention that PyTorch has chosen, before it runs."""


class FindBackend(TorchDispatchMode):
    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(function)
        if "_scaled_dot_product" in name:
            raise BackendFoundError(name.split("_scaled_dot_product_")[1].split("_")[0])
        if "bmm" in name or "softmax" in name:
            raise BackendFoundError("math")
        return function(*args, **(kwargs or {}))


def attention_backends(deterministic: bool = False) -> dict[str, str]:
    """Return which of PyTorch's kernels each kind of attention call takes."""
    if deterministic:
        use_deterministic_kernels()
    GPT.from_config(PRESETS["demo"])

    def heads(B: int, H: int, T: int) -> Tensor:
        return torch.empty(B, T, H, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2)

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.bool, device="cuda")

    def backend(T: int, S: int, mask: Tensor | None = None, trains: bool = False) -> str:
        q, k, v = (heads(2, *size).requires_grad_(trains) for size in ((14, T), (2, S), (2, S)))
        try:
            with FindBackend(), torch.set_grad_enabled(trains):
                attention.attend(q, k, v, mask=mask)
        except BackendFoundError as found:
            return str(found)
        return "none"

    def compiled_backend() -> str:
        found: list[str] = []

        def read_graph(graph: GraphModule, inputs: list[Tensor]) -> GraphModule:
            names = [str(node.target) for node in graph.graph.nodes]
            found.extend(name for name in names if "_scaled_dot_product_" in name)
            raise BackendFoundError

        compiled = torch.compile(
            attention.attend, fullgraph=True, backend=aot_autograd(fw_compiler=read_graph)
        )
        with suppress(Exception):
            q, k, v = (heads(2, count, 1024).requires_grad_() for count in (14, 2, 2))
            compiled(q, k, v)
        return found[0].split("_scaled_dot_product_")[1].split("_")[0]

    return {
        "training": backend(1024, 1024, trains=True),
        "training, compiled": compiled_backend(),
        "training, documents": backend(1024, 1024, ones(2, 1, 1024, 1024), trains=True),
        "training, documents, 320": backend(320, 320, ones(2, 1, 320, 320), trains=True),
        "evaluation": backend(1024, 1024),
        "prefill": backend(77, 77),
        "prefill behind a cache": backend(77, 200),
        "prefill, rows of several lengths": backend(77, 200, ones(2, 1, 77, 200)),
        "decoding": backend(1, 333),
        "compiled decoding": backend(1, 512, ones(2, 1, 1, 512)),
    }


class Rows:
    """Samples without content; the GPU does not read them."""

    block_size = 1_024

    def __init__(self, documents: bool) -> None:
        self.documents = documents

    def missing(self, samples: range) -> None:
        return None

    def read_batch(self, samples: range) -> Batch:
        ids = torch.zeros(len(samples), self.block_size, dtype=torch.int64)
        return Batch(ids, ids.clone(), ids.int() if self.documents else None)


def train_step(
    layers: int = 2,
    micro_batch: int = 8,
    accumulation: int = 2,
    documents: bool = False,
    optimizer: Literal["adamw", "muon"] = "adamw",
    **settings: Any,
) -> dict[str, Any]:
    """Return the calls and the peak memory of a step of the shape 1b with fewer layers."""
    skip_initialization()
    attention.CUDNN_CAPABILITIES = ((0, 0),) * 2  # cuDNN is no part of the fake GPU
    tokens = micro_batch * Rows.block_size * accumulation
    config = TrainConfig(
        steps=1_000, tokens_per_step=tokens, micro_batch_size=micro_batch, device="cuda:0",
        optimizer=OptimizerConfig(kind=optimizer), **settings,
    )  # fmt: skip
    recipe = Recipe(model=replace(PRESETS["1b"], n_layer=layers), train=config)
    with DistContext.init("cuda:0") as world, tempfile.TemporaryDirectory() as empty:
        state = TrainState(recipe, Path(empty), world)
        loader = PrefetchLoader(Rows(documents), world, config)  # type: ignore[arg-type]
        metrics: list[Tensor] = []

        def step(number: int) -> None:
            batches = loader.next_micro_batches(number)
            metrics.append(state.train_step(batches, number))
            loader.prefetch(number + 1)

        step(0)
        step(1)
        torch.cuda.reset_peak_memory_stats()
        calls = Calls.during(lambda: step(2))
        peak = torch.cuda.max_memory_allocated()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            step(3)
            torch.cuda.set_sync_debug_mode("default")
    estimate = estimate_memory(recipe.model, config).allocated_bytes
    found = [str(warning.message) for warning in caught]
    return {"calls": calls, "peak": peak, "estimate": estimate, "warnings": found}


def decode(
    quantize: str = "",
    rows: int = 1,
    layers: int = 2,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> dict[str, Any]:
    """Return the calls of the first decoding step, of ten more, and those of a second text."""
    answer_well()
    config = replace(PRESETS["1b"], n_layer=layers)
    with torch.device("meta"):
        model = GPT.from_config(config)
    model = fuse_projections(model.to(torch.bfloat16).to_empty(device="cuda").eval())
    if quantize:
        quantize_model(model, quantize)  # type: ignore[arg-type]
    size = config.vocab_size
    tokenizer: Any = SimpleNamespace(vocab_size=size, eos_ids=(), id_bytes=[b""] * size)
    engine = Engine(model, tokenizer, new_decoder(model))

    def start(rows: int, length: int, tokens: int = 60) -> ContinuousBatch:
        batch = engine.new_batch(rows, length)
        sampling = SamplingParams(temperature=temperature, top_p=top_p, seed=1)
        for row in range(rows):
            prompt = (row + 1, *range(1, 64))
            batch.add(Request(prompt_ids=prompt, max_new_tokens=tokens, sampling=sampling))
        batch.prefill_tokens = rows * 64
        batch.step()
        return batch

    def repeat(step: Callable[[], Any], most: int) -> None:
        for _ in range(most):
            step()

    batch = start(rows, 300)
    first = Calls.during(batch.step)
    ten = Calls.during(partial(repeat, batch.step, 10))
    del batch
    gc.collect()  # its cache and graphs are free
    batch = start(rows, 257)
    second = Calls.during(batch.step)
    rest = Calls.during(partial(repeat, batch.step, 100))
    assert not batch.active
    del batch
    gc.collect()
    if rows > 1:  # a second size is compiled once more, for all others
        start(rows // 2, 257).step()
        start(2 * rows, 257).step()
    with torch.compiler.set_stance("fail_on_recompile"):
        start(4 * rows if rows > 1 else 1, 900).step()
    return {"first": first, "ten": ten, "second": second, "rest": rest}


def answer_well() -> None:
    """Let the questions that end a text, such as whether all is finite, be answered with yes."""
    read_list, read_bool = Tensor.tolist, Tensor.__bool__

    def tolist(self: Tensor) -> Any:
        found = read_list(self)
        return [True] * len(found) if self.is_cuda and self.dtype == torch.bool else found

    Tensor.tolist = tolist  # type: ignore[assignment,method-assign]
    Tensor.__bool__ = lambda self: self.is_cuda or read_bool(self)  # type: ignore[method-assign]


def skip_initialization() -> None:
    """Make initial weights cost nothing: their values are never looked at."""
    nn.init.normal_ = lambda tensor, *_, **__: tensor
    nn.Embedding.reset_parameters = lambda self: None  # type: ignore[method-assign]


if __name__ == "__main__":
    program = {one.__name__: one for one in (attention_backends, train_step, decode)}[sys.argv[1]]
    print(json.dumps(program(**json.loads(sys.argv[2]))))
