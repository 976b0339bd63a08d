"""Speed of text generation, compared with llama.cpp, transformers and the memory bandwidth.

    python benchmarks/generation.py                    shape 1b, random weights
    python benchmarks/generation.py --shape 124m --rounds 3 --tokens 8

Runs on the CPU, or on the GPU if there is one. One text after a prompt, then eight in a batch, in
turns with the other libraries on the same weights with the same number of bits; medians are
reported. llama.cpp comes with `pip install llama-cpp-python gguf`, which compiles it for this
processor.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from gnano.config.inference_config import ExportDtype, Quantization, SamplingParams
from gnano.config.model_config import PRESETS
from gnano.export.formats import export_model
from gnano.infer.compiled_decode import CompiledDecoder
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.graph_decode import GraphDecoder, new_decoder
from gnano.infer.request import Request
from gnano.infer.throughput import count_weight_bytes, measure_read_bandwidth
from gnano.infer.weight_formats import fuse_projections, prepack_onednn, quantize_model
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

PROMPT_TOKENS = 64
GGUF_DTYPES: dict[Quantization, ExportDtype] = {"": "bf16", "int8": "q8_0", "int4": "q4_0"}
SHAPES = [name for name, shape in PRESETS.items() if shape.vocab_size == 50_257]  # GPT-2's
GREEDY = SamplingParams(temperature=0)
Generate = Callable[[int], float]  # number of tokens -> seconds, without the prompt


def random_model(shape: str, device: str) -> GPT:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = GPT.from_config(PRESETS[shape])
    model = model.to(torch.bfloat16).to_empty(device=device).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02) if parameter.dim() == 2 else parameter.fill_(1)
        model.lm_head.weight[model.config.vocab_size :] = 0
    return model


def no_text(model: GPT) -> Any:
    """Return a tokenizer without text and without an end of text."""
    size = model.config.vocab_size
    return SimpleNamespace(vocab_size=size, eos_ids=(), id_bytes=[b""] * size)


def gnano_generate(
    model: GPT, texts: int, compiled: CompiledDecoder | GraphDecoder | None = None
) -> Generate:
    def generate(tokens: int) -> float:
        batch = ContinuousBatch(
            model, no_text(model), texts, PROMPT_TOKENS + tokens + 1, compiled_decoder=compiled
        )
        batch.prefill_tokens = texts * PROMPT_TOKENS  # all prompts before the first step

        def measure_seconds() -> float:
            for number in range(texts):
                ids = (number + 1, *range(1, PROMPT_TOKENS))
                batch.add(Request(prompt_ids=ids, max_new_tokens=tokens + 1, sampling=GREEDY))
            batch.step()
            started = time.perf_counter()
            while batch.active or batch.waiting:
                batch.step()
            return time.perf_counter() - started

        if compiled and batch.device.type == "cuda":
            measure_seconds()  # captures the CUDA graphs, which belong to the batch
        return measure_seconds()

    return generate


def gnano_prefill(model: GPT) -> float:
    """Return the seconds for a prompt of 512 tokens."""
    batch = ContinuousBatch(model, no_text(model), 1, 512)
    batch.prefill_tokens = 512
    batch.add(Request(prompt_ids=tuple(range(512)), max_new_tokens=1, sampling=GREEDY))
    started = time.perf_counter()
    batch.step()
    return time.perf_counter() - started


class Transformers:
    """The same model in transformers, eager and compiled."""

    def __init__(self, folder: Path, device: str) -> None:
        from transformers import LlamaForCausalLM

        loaded: Any = LlamaForCausalLM
        self.model = loaded.from_pretrained(folder, dtype=torch.bfloat16).to(device)
        self.device = device

    @torch.inference_mode()
    def generate(self, tokens: int, compiled: bool = False) -> float:
        from transformers import StaticCache

        ids = torch.arange(PROMPT_TOKENS, device=self.device)[None]
        if compiled:
            cache = StaticCache(config=self.model.config, max_cache_len=PROMPT_TOKENS + tokens + 1)
            step: Any = torch.compile(self.model.forward)
        else:
            cache, step = None, self.model.forward
        out = self.model(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        took = 0.0
        for number in range(tokens):
            position = torch.tensor([PROMPT_TOKENS + number], device=self.device)
            started = time.perf_counter()
            out = step(token, past_key_values=cache, use_cache=True, cache_position=position)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            token.item()
            took += time.perf_counter() - started
        return took

    @torch.inference_mode()
    def prefill(self) -> float:
        ids = torch.arange(512, device=self.device)[None]
        started = time.perf_counter()
        self.model(ids, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
        return time.perf_counter() - started


class LlamaCpp:
    """The same model in llama.cpp."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        library: Any = llama_cpp
        gpu = -1 if torch.cuda.is_available() else 0
        self.model = library.Llama(
            str(path), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False,
            n_gpu_layers=gpu,
        )  # fmt: skip

    def generate(self, tokens: int) -> float:
        self.model.reset()
        self.model.eval(list(range(PROMPT_TOKENS)))
        started = time.perf_counter()
        for number in range(tokens):
            self.model.eval([number + 1])
        return time.perf_counter() - started

    def prefill(self) -> float:
        self.model.reset()
        started = time.perf_counter()
        self.model.eval(list(range(512)))
        return time.perf_counter() - started


@dataclass
class Contenders:
    """The measured functions, by names that begin with the precision."""

    generates: dict[str, tuple[Generate, int]] = field(default_factory=dict)  # with the texts
    prefills: dict[str, Callable[[], float]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)  # precision: bytes read per step


def find_contenders(shape: str, device: str, folder: Path) -> Contenders:
    """Return all that are installed, with the same weights; `folder` is for their files."""
    found = Contenders()
    saved = folder / "model"
    saved.mkdir()
    tokenizer = load_gpt2_tokenizer()
    tokenizer.save(saved)
    save_model(random_model(shape, device), saved, tokenizer.end_of_text_id)
    quants: tuple[Quantization, ...] = ("", "int8", "int4")
    for quant in quants:
        precision = quant or "bf16"
        model = fuse_projections(random_model(shape, device))
        if quant:
            quantize_model(model, quant)
        found.limits[precision] = count_weight_bytes(model)
        found.generates[f"{precision} gnano"] = gnano_generate(model, 1), 1
        found.generates[f"{precision} gnano compiled"] = (
            gnano_generate(model, 1, new_decoder(model)),
            1,
        )
        # as in `Engine`: bf16 weights on a CPU are prepacked for batches
        batch_model = (
            model if quant else prepack_onednn(fuse_projections(random_model(shape, device)))
        )
        graphs = new_decoder(batch_model) if device == "cuda" else None
        for texts in (8,) if device == "cpu" else (8, 64):
            found.generates[f"{precision} gnano, {texts} texts"] = (
                gnano_generate(batch_model, texts, graphs),
                texts,
            )
        found.prefills[f"{precision} gnano"] = partial(gnano_prefill, model)
        try:
            path = folder / f"{precision}.gguf"
            export_model(saved, "gguf", GGUF_DTYPES[quant], path)
            llama = LlamaCpp(path, torch.get_num_threads())
            found.generates[f"{precision} llama.cpp"] = llama.generate, 1
            found.prefills[f"{precision} llama.cpp"] = llama.prefill
        except (ImportError, ValueError) as error:
            print(f"no llama.cpp for {precision}: {error}")
    transformers = Transformers(saved, device)
    found.generates["bf16 transformers"] = transformers.generate, 1
    found.generates["bf16 transformers compiled"] = (
        lambda tokens: transformers.generate(tokens, True),
        1,
    )
    found.prefills["bf16 transformers"] = transformers.prefill
    return found


def measure(
    contenders: Contenders, rounds: int, tokens: int, device: torch.device
) -> tuple[dict[str, float], dict[str, float], list[float]]:
    """Return tokens per second of generation and prefill by name, and the memory bandwidths.

    The speeds are medians of the rounds after the first. The bandwidth in bytes per second is
    measured between the rounds, because other programs may use the memory.
    """
    bandwidths = []
    speeds: dict[str, list[float]] = {name: [] for name in contenders.generates}
    prompts: dict[str, list[float]] = {name: [] for name in contenders.prefills}
    for number in range(rounds + 1):  # the first warms up
        for name, (generate, texts) in contenders.generates.items():
            took = generate(tokens)
            if number:
                speeds[name].append(texts * tokens / took)
        for name, prefill in contenders.prefills.items():
            took = prefill()
            if number:
                prompts[name].append(512 / took)
        bandwidths.append(measure_read_bandwidth(device))
    generated, prefilled = (
        {name: statistics.median(taken) for name, taken in each.items()}
        for each in (speeds, prompts)
    )
    return generated, prefilled, bandwidths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--tokens", type=int, default=16, help="generated in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} threads"
    print(f"shape {args.shape} on {where}, {os.cpu_count()} cores; medians of {args.rounds}")
    with tempfile.TemporaryDirectory() as folder:
        contenders = find_contenders(args.shape, device, Path(folder))
        generated, prefilled, bandwidths = measure(
            contenders, args.rounds, args.tokens, torch.device(device)
        )
    bandwidth = max(bandwidths)
    print(f"memory: {min(bandwidths) / 1e9:.1f} to {bandwidth / 1e9:.1f} GB/s, read by a plain sum")
    for name, speed in generated.items():
        precision = name.split()[0]
        limit = bandwidth / contenders.limits[precision]
        best = generated[f"{precision} gnano compiled"]
        print(
            f"{name:<28}{speed:9.1f} tokens/s   gnano compiled is {best / speed:5.2f} ×   "
            f"{speed / limit:5.2f} of {limit:.1f}, the memory's limit for one text"
        )
    for name, speed in prefilled.items():
        own = prefilled[f"{name.split()[0]} gnano"]
        print(
            f"{name:<28}{speed:9.0f} tokens/s of 512 in the prompt   gnano is {own / speed:5.2f} ×"
        )
    if args.json:
        results = {"write": generated, "prompt": prefilled, "read": bandwidth}
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
