"""How fast does the engine write, beside llama.cpp, transformers and the memory's own speed?

    python benchmarks/generation.py                    shape 1b, random weights
    python benchmarks/generation.py --shape 124m --rounds 3 --tokens 8

On this machine's CPU, or its GPU where it has one. One text after a prompt, then eight side by
side, in turns with the peers on the same weights at the same bits; medians are told. llama.cpp
comes with `pip install llama-cpp-python gguf`, which compiles it for this processor.
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
from typing import Any

import torch

from gnano.config.export_config import ExportDtype
from gnano.config.inference_config import Quantization, SamplingParams
from gnano.config.model_config import PRESETS
from gnano.export.formats import export_model
from gnano.infer.compiled_decode import CompiledDecoder
from gnano.infer.continuous_batching import ContinuousBatch, Request
from gnano.infer.cpu_layers import fuse_projections, prepack_onednn
from gnano.infer.quantize import quantize_model
from gnano.infer.throughput import NO_EOS_TOKEN, count_weight_bytes, measure_read_bandwidth
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

PROMPT = 64
GGUF: dict[Quantization, ExportDtype] = {"": "bf16", "int8": "q8_0", "int4": "q4_0"}  # as many bits
SHAPES = [name for name, shape in PRESETS.items() if shape.vocab_size == 50_257]  # GPT-2's
GREEDY = SamplingParams(temperature=0)
Write = Callable[[int], float]  # a number of tokens -> seconds for them, after the prompt


def fresh(shape: str, device: str) -> GPT:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = GPT.from_config(PRESETS[shape])
    model = model.to(torch.bfloat16).to_empty(device=device).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02) if parameter.dim() == 2 else parameter.fill_(1)
        model.lm_head.weight[model.config.vocab_size :] = 0
    return model


def ours(model: GPT, texts: int, compiled: CompiledDecoder | None = None) -> Write:
    def write(tokens: int) -> float:
        batch = ContinuousBatch(
            model, NO_EOS_TOKEN, texts, PROMPT + tokens + 1, compiled_decoder=compiled
        )
        for number in range(texts):
            ids = (number + 1, *range(1, PROMPT))
            batch.add(Request(prompt_ids=ids, max_new_tokens=tokens + 1, sampling=GREEDY))
        batch.step()
        started = time.perf_counter()
        while batch:
            batch.step()
        return time.perf_counter() - started

    return write


def ours_prefill(model: GPT) -> float:
    """Seconds for a prompt of 512."""
    batch = ContinuousBatch(model, NO_EOS_TOKEN, 1, 512)
    batch.add(Request(prompt_ids=tuple(range(512)), max_new_tokens=1, sampling=GREEDY))
    started = time.perf_counter()
    batch.step()
    return time.perf_counter() - started


class Transformers:
    def __init__(self, folder: Path, device: str) -> None:
        from transformers import LlamaForCausalLM

        loaded: Any = LlamaForCausalLM
        self.model = loaded.from_pretrained(folder, dtype=torch.bfloat16).to(device)
        self.device = device

    @torch.inference_mode()
    def write(self, tokens: int, compiled: bool = False) -> float:
        from transformers import StaticCache

        ids = torch.arange(PROMPT, device=self.device)[None]
        if compiled:
            cache = StaticCache(config=self.model.config, max_cache_len=PROMPT + tokens + 1)
            step: Any = torch.compile(self.model.forward)
        else:
            cache, step = None, self.model.forward
        out = self.model(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        took = 0.0
        for number in range(tokens):
            place = torch.tensor([PROMPT + number], device=self.device)
            started = time.perf_counter()
            out = step(token, past_key_values=cache, use_cache=True, cache_position=place)
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
    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        peer: Any = llama_cpp
        gpu = -1 if torch.cuda.is_available() else 0
        self.model = peer.Llama(
            str(path), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False,
            n_gpu_layers=gpu,
        )  # fmt: skip

    def write(self, tokens: int) -> float:
        self.model.reset()
        self.model.eval(list(range(PROMPT)))
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
class Contest:
    """Who takes turns, by names that begin with the bits."""

    writes: dict[str, tuple[Write, int]] = field(default_factory=dict)  # how, and texts
    prefills: dict[str, Callable[[], float]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)  # bits: bytes a step reads


def contest(shape: str, device: str, folder: Path) -> Contest:
    """All that is installed, on the same weights; `folder` is for their files."""
    found = Contest()
    saved = folder / "model"
    saved.mkdir()
    tokenizer = load_gpt2_tokenizer()
    tokenizer.save(saved)
    save_model(fresh(shape, device), saved, tokenizer.end_of_text_id)
    quants: tuple[Quantization, ...] = ("", "int8", "int4")
    for quant in quants:
        bits = quant or "bf16"
        model = fuse_projections(fresh(shape, device))
        if quant:
            quantize_model(model, quant)
        found.limits[bits] = count_weight_bytes(model)
        found.writes[f"{bits} ours"] = ours(model, 1), 1
        found.writes[f"{bits} ours compiled"] = ours(model, 1, CompiledDecoder(model)), 1
        # as `Engine` has them: bf16 on a CPU is laid out where several are wanted
        several = model if quant else prepack_onednn(fuse_projections(fresh(shape, device)))
        graphs = CompiledDecoder(several) if device == "cuda" else None
        for texts in (8,) if device == "cpu" else (8, 64):
            found.writes[f"{bits} ours, {texts} texts"] = ours(several, texts, graphs), texts
        found.prefills[f"{bits} ours"] = partial(ours_prefill, model)
        try:
            path = folder / f"{bits}.gguf"
            export_model(saved, "gguf", GGUF[quant], path)
            peer = LlamaCpp(path, torch.get_num_threads())
            found.writes[f"{bits} llama.cpp"] = peer.write, 1
            found.prefills[f"{bits} llama.cpp"] = peer.prefill
        except (ImportError, ValueError) as error:
            print(f"no llama.cpp beside {bits}: {error}")
    theirs = Transformers(saved, device)
    found.writes["bf16 transformers"] = theirs.write, 1
    found.writes["bf16 transformers compiled"] = lambda tokens: theirs.write(tokens, True), 1
    found.prefills["bf16 transformers"] = theirs.prefill
    return found


def held(
    who: Contest, rounds: int, tokens: int, device: torch.device
) -> tuple[dict[str, float], dict[str, float], list[float]]:
    """Tokens a second, written and read, by name: the medians of the turns after the first.

    And the bytes a second that the memory gave between the rounds, which others may share.
    """
    memory = []
    speeds: dict[str, list[float]] = {name: [] for name in who.writes}
    prompts: dict[str, list[float]] = {name: [] for name in who.prefills}
    for number in range(rounds + 1):  # the first warms up
        for name, (write, texts) in who.writes.items():
            took = write(tokens)
            if number:
                speeds[name].append(texts * tokens / took)
        for name, prefill in who.prefills.items():
            took = prefill()
            if number:
                prompts[name].append(512 / took)
        memory.append(measure_read_bandwidth(device))
    written = {name: statistics.median(found) for name, found in speeds.items()}
    return written, {name: statistics.median(found) for name, found in prompts.items()}, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--tokens", type=int, default=16, help="written in each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} threads"
    print(f"shape {asked.shape} on {where}, {os.cpu_count()} cores; medians of {asked.beats}")
    with tempfile.TemporaryDirectory() as folder:
        who = contest(asked.shape, device, Path(folder))
        written, first, memory = held(who, asked.beats, asked.tokens, torch.device(device))
    read = max(memory)
    print(f"memory: {min(memory) / 1e9:.1f} to {read / 1e9:.1f} GB/s, read by a plain sum")
    for name, speed in written.items():
        kind = name.split()[0]
        limit, best = read / who.limits[kind], written[f"{kind} ours compiled"]
        print(
            f"{name:<28}{speed:9.1f} tokens/s   ours compiled is {best / speed:5.2f} ×   "
            f"{speed / limit:5.2f} of {limit:.1f}, the memory's limit for one text"
        )
    for name, speed in first.items():
        beside = first[f"{name.split()[0]} ours"]
        print(f"{name:<28}{speed:9.0f} tokens/s of 512 read   ours is {beside / speed:5.2f} ×")
    if asked.to_json:
        figures = {"write": written, "prompt": first, "read": read}
        asked.to_json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
