"""The self-test of numbers: a layer and greedy decoding, compared with a CPU.

The reference is computed in fp64, with other kernels than those of training. Weights and inputs
come from NumPy's frozen generator, so all devices and versions get the same.

The largest differences measured on a CPU were, of a layer's output and gradients, 1.2e-6 in fp32
(TF32 would give 1e-3), 0.013 in bf16, 0.0017 in fp16 and 0.16 in fp8, and of decoding 0 nats in
fp32 and 0.007 in bf16. No GPU has been measured yet, so the tolerances leave more than twice that.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnano.config.inference_config import InferenceDtype, SamplingParams
from gnano.config.model_config import ModelConfig
from gnano.doctor.check import Check, Part
from gnano.infer.engine import Engine
from gnano.model.attention import PrefixTree
from gnano.model.fp8 import convert_to_fp8, fp8_unsupported_reason
from gnano.model.transformer import GPT
from gnano.train.resolve import choose_precision
from gnano.train.train_step import COMPUTE_DTYPES
from gnano.utils.platform_support import compile_unsupported_reason

LAYER_TOLERANCES = {"fp32": 1e-4, "bf16": 0.03, "fp16": 0.005, "fp8": 0.4}
# 192 = 64 modulo 128, where a fused kernel has given NaN
LAYER_SHAPE = ModelConfig(
    vocab_size=256, n_embd=256, n_layer=1, n_head=4, n_kv_head=2, ffn_hidden=512, block_size=192
)
# nats by which a chosen token may be less likely than the best one
DECODING_TOLERANCES: dict[InferenceDtype, float] = {"fp32": 1e-3, "bf16": 0.05}
MASKS = ("causal", "documents", "prefix tree")
PROMPTS = ((1, 2, 3), (200, 150, 100, 50, 25), (7,), tuple(range(40, 60)))
NEW_TOKENS = 40
ADVICE = "Do not train here: try other versions of PyTorch and the driver, and report it."


def device_precisions(device: torch.device) -> list[str]:
    """Return the precisions that the device trains in, fp32 first."""
    if device.type == "mps":
        return ["fp32"]
    half = "bf16" if device.type == "cpu" else choose_precision(device)
    return ["fp32", half, *([] if fp8_unsupported_reason(device) else ["fp8"])]


def compile_options(device: torch.device, quick: bool) -> list[bool]:
    """Return whether to test uncompiled, or also compiled code."""
    return [False] if quick or compile_unsupported_reason(device) else [False, True]


def fill_weights(model: GPT, std: float = 0.1) -> GPT:
    """Replace the matrices by random numbers that do not depend on PyTorch's version."""
    generator = np.random.RandomState(0)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.dim() == 2:
                values = std * generator.standard_normal(tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(values))
        model.lm_head.weight[model.config.vocab_size :] = 0
    return model


def numeric_parts(device: torch.device, model_folder: Path, quick: bool) -> list[Part]:
    """Return the tests of a layer, and of decoding with the model in the folder."""
    parts: list[Part] = []
    for compiled in compile_options(device, quick):
        how = "compiled" if compiled else "eager"
        for precision, mask in product(device_precisions(device), MASKS):
            name = f"layer {precision} {how}, {mask}"
            test = partial(_test_layer, name, device, mask, precision, compiled)
            parts.append((name, test))
    for compiled in compile_options(device, quick):
        how = "compiled" if compiled else "eager"
        dtypes: list[InferenceDtype] = ["fp32", "bf16"] if device.type == "cuda" else ["fp32"]
        for dtype in dtypes:
            name = f"decoding {dtype} {how}"
            test = partial(_test_decoding, name, device, model_folder, dtype, compiled)
            parts.append((name, test))
    if not quick and (reason := compile_unsupported_reason(device)):
        untested = Check("compiled code", "unknown", f"not tested: {reason}")
        parts.append((untested.name, lambda: [untested]))
    return parts


def _mask_arguments(mask: str, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `GPT.hidden_states` for two rows of 192 positions."""
    if mask == "documents":
        documents = torch.tensor([[0] * 70 + [1] * 122, [0] * 20 + [1] * 100 + [2] * 72])
        return {"document_ids_BT": documents.to(device)}
    if mask == "prefix tree":
        branches = torch.tensor([[0] * 80 + [1] * 60 + [2] * 52] * 2)
        positions = torch.tensor([[*range(140), *range(80, 132)]] * 2)
        return {"prefix_tree": PrefixTree(branches.to(device), positions.to(device))}
    return {}


def run_layer(
    device: torch.device, mask: str, precision: str, compiled: bool = False
) -> dict[str, Tensor]:
    """Return the output and all gradients of a model of one layer; precision "fp64" too."""
    model = fill_weights(GPT.from_config(LAYER_SHAPE), std=0.06).to(device)
    if precision == "fp64":
        model.double()
    model.compute_dtype = COMPUTE_DTYPES.get(precision)
    if precision == "fp8":
        convert_to_fp8(model, min_intensity=0)
    if compiled:
        model.compile_blocks()
    generator = np.random.RandomState(1)
    ids_BT = torch.from_numpy(generator.randint(LAYER_SHAPE.vocab_size, size=(2, 192)))
    grad_BTD = torch.from_numpy(generator.standard_normal((2, 192, LAYER_SHAPE.n_embd)))
    y_BTD = model.hidden_states(ids_BT.to(device), **_mask_arguments(mask, device))
    torch.autograd.backward(y_BTD, grad_BTD.to(device, y_BTD.dtype))
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: x.detach().cpu().double() for name, x in {"output": y_BTD, **grads}.items()}


def compare_layer(
    device: torch.device, mask: str, precision: str, compiled: bool = False
) -> tuple[float, str]:
    """Return the largest relative difference from a CPU in fp64, and the tensor that has it."""
    found = run_layer(device, mask, precision, compiled)
    expected = run_layer(torch.device("cpu"), mask, "fp64")
    errors = [
        (float((found[name] - value).norm() / value.norm()), name)
        for name, value in expected.items()
    ]
    return max(errors, key=lambda error: (math.isnan(error[0]), error[0]))


def _test_layer(
    name: str, device: torch.device, mask: str, precision: str, compiled: bool
) -> Iterator[Check]:
    error, tensor = compare_layer(device, mask, precision, compiled)
    where = tensor.removeprefix("model.layers.0.").removesuffix(".weight")
    text = f"relative difference from the CPU's fp64, at most, in {where}:"
    yield Check.within(LAYER_TOLERANCES[precision], error, name, text, ADVICE)


def _test_decoding(
    name: str, device: torch.device, folder: Path, dtype: InferenceDtype, compiled: bool
) -> Iterator[Check]:
    """Continue prompts alone and side by side, and look up each token in a CPU's logits."""
    engine = Engine.load(folder, str(device), dtype, compile=compiled)
    reference = Engine.load(folder, "cpu", "fp32").model
    greedy, gaps = SamplingParams(temperature=0), []
    for prompts in (PROMPTS[:1], PROMPTS):
        texts = engine.generate_batch(prompts, NEW_TOKENS, greedy)
        for prompt, [completion] in zip(prompts, texts, strict=True):
            ids_T = torch.tensor([*prompt, *completion.token_ids])
            with torch.inference_mode():
                logits_TV = reference(ids_T[None])[0, len(prompt) - 1 : -1]
            logits_TV = logits_TV[:, : engine.tokenizer.vocab_size]
            chosen_T = logits_TV.gather(1, ids_T[len(prompt) :, None])[:, 0]
            gaps.append(logits_TV.amax(1) - chosen_T)
    gap_N = torch.cat(gaps)
    text = f"{len(gap_N)} greedy tokens, behind the CPU's choice by at most, in nats:"
    yield Check.within(DECODING_TOLERANCES[dtype], float(gap_N.max()), name, text, ADVICE)
