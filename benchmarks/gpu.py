"""Training speed of one GPU and the gain of each change, compared with transformers and accelerate.

    python benchmarks/gpu.py                         shape 1b, all measurements (about an hour)
    python benchmarks/gpu.py --quick                 124m, one round (minutes)
    python benchmarks/gpu.py --device cpu --shape demo

Complete steps on random tokens through the trainer's `TrainState`: loss, backward, clipping,
AdamW. Each line reports its gain over the line it builds on:

    eager ─▶ compiled ─▶ best of micro-batch × recomputation ─▶ FP8 ─▶ accumulation

and the same for transformers' Llama with accelerate's bf16 (torch.compile of the model, fused
AdamW, SDPA or flash attention where it is installed). Then the most important setups run again in
turns, and their medians are compared. Each measurement is a separate process, so nothing is left in
memory, and one that does not fit is reported as such.

Needs torch; transformers and accelerate for the comparison.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnano.config.hf_config import write_hf_config
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, TrainConfig
from gnano.model.flops import compute_mfu, num_parameters
from gnano.train.estimate import estimate_memory

WARMUP, TIMEOUT = 3, 1_200  # steps; seconds of a measurement, including compilation
TARGETS = {"bf16": 94_000, "fp8": 105_000}  # tokens/s of shape 1b on an H200


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A library and its settings."""

    library: str = "gnano"
    precision: str = "bf16"
    compile: bool = True
    micro_batch: int = 8
    recompute: bool = False
    accumulation: int = 1
    attention: str = "sdpa"  # name in transformers

    def __str__(self) -> str:
        parts = [
            f"{self.library:<12} {self.precision:<4} {'compiled' if self.compile else 'eager':<8}",
            f" {self.micro_batch:>2} sequences",
            f" × {self.accumulation}" if self.accumulation > 1 else "    ",
            " recomputed" if self.recompute else "           ",
            " flash" if self.attention != "sdpa" else "",
        ]
        return "".join(parts)

    def train_config(self, shape: ModelConfig, device: str) -> TrainConfig:
        return TrainConfig(
            steps=1_000_000,  # more than measured
            schedule=LRSchedule(warmup=1),
            tokens_per_step=self.micro_batch * shape.block_size * self.accumulation,
            micro_batch_size=self.micro_batch,
            precision=self.precision,  # type: ignore[arg-type]
            device=device,
            parallel="ddp",
            compile="yes" if self.compile else "no",
            activation_checkpointing=self.recompute,
        )


def gnano_step(setup: Setup, shape: ModelConfig, device: torch.device) -> Callable[[int], Tensor]:
    """Return a function that trains one step, given its number, and returns its loss."""
    from gnano.data.packed_dataset import Batch
    from gnano.model.fp8 import fp8_unsupported_reason
    from gnano.train.distributed.context import DistContext
    from gnano.train.train_step import TrainState

    if setup.precision == "fp8" and (reason := fp8_unsupported_reason(device)):
        raise ValueError(reason)
    recipe = Recipe(model=shape, train=setup.train_config(shape, str(device)))
    with tempfile.TemporaryDirectory() as empty, DistContext.init(str(device)) as world:
        train_state = TrainState(recipe, Path(empty), world)
    micro_batches = [Batch(*pair, None) for pair in random_micro_batches(setup, shape, device)]

    def step(number: int) -> Tensor:
        return train_state.train_step(micro_batches, number)[0]

    return step


def transformers_step(
    setup: Setup, shape: ModelConfig, device: torch.device
) -> Callable[[int], Tensor]:
    """Return the same function with transformers and accelerate."""
    from accelerate import Accelerator
    from transformers import LlamaConfig, LlamaForCausalLM

    class Loss(torch.nn.Module):
        """Return only the loss: accelerate would copy the logits to fp32 again."""

        def __init__(self) -> None:
            super().__init__()
            config = {**write_hf_config(shape), "attn_implementation": setup.attention}
            self.llama = LlamaForCausalLM(LlamaConfig(**config))
            if setup.recompute:
                self.llama.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]

        def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
            out = self.llama(ids_BT, labels=targets_BT, shift_labels=targets_BT, use_cache=False)
            loss: Tensor = out.loss
            return loss

    torch.set_float32_matmul_precision("high")
    accelerator = Accelerator(
        mixed_precision="no" if setup.precision == "fp32" else setup.precision,
        cpu=device.type == "cpu",
        dynamo_backend="inductor" if setup.compile else "no",
    )
    parameters = Loss().to(device)
    optimizer = torch.optim.AdamW(
        parameters.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    model, optimizer = accelerator.prepare(parameters, optimizer)
    micro_batches = random_micro_batches(setup, shape, device)

    def step(number: int) -> Tensor:
        total = torch.zeros((), device=device)
        for inputs_BT, targets_BT in micro_batches:
            loss = model(inputs_BT, targets_BT) / len(micro_batches)
            accelerator.backward(loss)
            total += loss.detach()
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def random_micro_batches(
    setup: Setup, shape: ModelConfig, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    size = (setup.accumulation, setup.micro_batch, shape.block_size + 1)
    ids = torch.randint(0, shape.vocab_size, size, device=device)
    return [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]


def measure(
    setup: Setup, shape: ModelConfig, device: torch.device, seconds: float
) -> dict[str, Any]:
    """Return tokens per second, peak memory and the loss of the last step."""
    from gnano.train.logging.metrics_logger import peak_memory_bytes

    step = (gnano_step if setup.library == "gnano" else transformers_step)(setup, shape, device)
    number, loss = 0, torch.zeros(())

    def steps(count: int) -> float:
        """Return the seconds per step of `count` steps, synchronizing at their end."""
        nonlocal number, loss
        started_at = time.perf_counter()
        for _ in range(count):
            loss = step(number)
            number += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started_at) / count

    steps(WARMUP)
    gc.collect()
    count = max(1, round(0.5 / steps(1)))
    deadline, times = time.perf_counter() + seconds, [steps(count)]
    while time.perf_counter() < deadline or len(times) < 5:
        times.append(steps(count))
    tokens = setup.micro_batch * shape.block_size * setup.accumulation
    speed = tokens / statistics.median(times)
    return {"tokens_per_s": speed, "peak_gb": peak_memory_bytes(device) / 1e9, "loss": float(loss)}


def measure_in_process(setup: Setup, options: argparse.Namespace) -> dict[str, Any]:
    """Run `measure` in a new process; the key `failed` contains the reason of a failure."""
    one = json.dumps(asdict(setup))
    command = [sys.executable, __file__, "--device", options.device, "--shape", options.shape]
    command += ["--seconds", str(options.seconds), "--one", one]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"no result after {TIMEOUT // 60} minutes"}
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
        return result
    out_of_memory = "OutOfMemoryError" in done.stderr or "out of memory" in done.stderr
    if out_of_memory or done.returncode == -9:
        return {"failed": "does not fit"}
    return {"failed": (done.stderr.strip().split("\n") or ["?"])[-1][:100]}


class Benchmark:
    """Measures setups and prints a line for each, with its gain over another one."""

    def __init__(self, options: argparse.Namespace, shape: ModelConfig) -> None:
        self.options, self.shape = options, shape
        on_gpu = options.device.startswith("cuda")
        self.gpu = torch.cuda.get_device_name(options.device) if on_gpu else None
        self.speeds: dict[Setup, list[float]] = {}

    def measure(self, setup: Setup, before: Setup | None = None) -> float:
        """Print and return the speed of a setup; 0 if it cannot run."""
        result = measure_in_process(setup, self.options)
        if "failed" in result:
            print(f"{setup}  {result['failed']}", flush=True)
            return 0.0
        speed: float = result["tokens_per_s"]
        self.speeds.setdefault(setup, []).append(speed)
        gain = ""
        if before in self.speeds:
            changed = ", ".join(k for k, v in asdict(setup).items() if v != asdict(before)[k])
            gain = f"  {speed / statistics.median(self.speeds[before]):5.2f} × by {changed}"
        peak = f"{result['peak_gb']:5.1f} GB{self._predicted(setup)}"
        speed_text = f"{speed:9,.0f} tokens/s{self._share(speed, setup)}"
        print(f"{setup}  {speed_text}  {peak}  loss {result['loss']:.2f}{gain}", flush=True)
        return speed

    def faster(self, *setups: Setup) -> Setup:
        return max(setups, key=lambda setup: statistics.median(self.speeds.get(setup, [0.0])))

    def best(self, setup: Setup) -> Setup:
        """Return the fastest over micro-batches and recomputation; stop at a size that fails."""
        found = {setup: self.measure(setup)} if setup not in self.speeds else {}
        found = found or {setup: statistics.median(self.speeds[setup])}
        for recompute in (False, True):
            for micro_batch in self.options.micro_batches:
                tried = replace(setup, micro_batch=micro_batch, recompute=recompute)
                if tried in found:
                    continue
                found[tried] = self.measure(tried, setup)
                if not found[tried]:
                    break
        return max(found, key=lambda tried: found[tried])

    def medians(self, setups: list[Setup]) -> None:
        for _ in range(self.options.rounds):
            for setup in setups:
                self.measure(setup)
        print(f"\nmedians of all measurements, {self.options.rounds} rounds in turns")
        others = [s for s in setups if s.library != "gnano" and s in self.speeds]
        base = max((statistics.median(self.speeds[s]) for s in others), default=0.0)
        for setup in (s for s in setups if s in self.speeds):
            taken = self.speeds[setup]
            speed = statistics.median(taken)
            ratio = f"  {speed / base:5.2f} × transformers at its best" if base else ""
            measured = (self.gpu, self.options.shape, setup.library)
            has_target = measured == ("NVIDIA H200", "1b", "gnano")
            target = f"  target {TARGETS[setup.precision]:,}" if has_target else ""
            print(
                f"{setup}  {speed:9,.0f} tokens/s{self._share(speed, setup)}"
                f"  ({min(taken) / speed:.2f} … {max(taken) / speed:.2f}){ratio}{target}"
            )

    def _share(self, speed: float, setup: Setup) -> str:
        if self.gpu is None:
            return ""
        share = compute_mfu(speed, self.shape, 1, self.gpu, setup.precision)
        return "  MFU unknown" if share is None else f"  {share:5.1%} MFU"

    def _predicted(self, setup: Setup) -> str:
        if self.gpu is None or setup.library != "gnano":
            return ""
        memory = estimate_memory(self.shape, setup.train_config(self.shape, self.options.device))
        return f" (predicted {memory.allocated_bytes / 1e9:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=list(PRESETS))
    parser.add_argument("--quick", action="store_true", help="a small shape, one round")
    parser.add_argument("--rounds", type=int, help="rounds of the comparison in turns")
    parser.add_argument("--seconds", type=float, help="seconds of each measurement")
    parser.add_argument("--micro-batches", type=int, nargs="+", help="sequences per micro-batch")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_gpu = options.device.startswith("cuda")
    options.shape = options.shape or (("124m" if options.quick else "1b") if on_gpu else "demo")
    options.rounds = options.rounds or (1 if options.quick or not on_gpu else 3)
    options.seconds = options.seconds or (3.0 if options.quick or not on_gpu else 6.0)
    options.micro_batches = options.micro_batches or ([8, 16, 24, 32] if on_gpu else [8, 16])
    shape = PRESETS[options.shape]
    if options.one:
        setup = Setup(**json.loads(options.one))
        print(json.dumps(measure(setup, shape, torch.device(options.device), options.seconds)))
        return
    run_all(Benchmark(options, shape))


def run_all(benchmark: Benchmark) -> None:
    options, shape = benchmark.options, benchmark.shape
    print(
        f"{benchmark.gpu or 'CPU'}, torch {torch.__version__}, shape {options.shape}: "
        f"{num_parameters(shape):,} parameters, sequences of {shape.block_size:,}\n"
    )
    first = options.micro_batches[0]
    eager = Setup(compile=False, micro_batch=first)
    compiled = replace(eager, compile=True)
    benchmark.measure(eager)
    benchmark.measure(compiled, eager)
    best = benchmark.best(benchmark.faster(compiled, eager))
    fp8 = replace(compiled, precision="fp8")
    own = [compiled, best, replace(best, accumulation=4)]
    if benchmark.measure(fp8, compiled):
        fp8_best = benchmark.best(fp8)
        own += [fp8, fp8_best, replace(fp8_best, accumulation=4)]
    others = best_of_transformers(benchmark, replace(eager, library="transformers"))
    print()
    benchmark.medians(list(dict.fromkeys([*own, *others])))


def best_of_transformers(benchmark: Benchmark, eager: Setup) -> list[Setup]:
    for package in ("transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed, so nothing is compared.")
            return []
    benchmark.measure(eager)
    compiled = replace(eager, compile=True)
    benchmark.measure(compiled, eager)
    base = benchmark.faster(compiled, eager)
    if importlib.util.find_spec("flash_attn") is not None:
        flash = replace(base, attention="flash_attention_2")
        benchmark.measure(flash, base)
        base = benchmark.faster(flash, base)
    best = benchmark.best(base)
    return [base, best, replace(best, accumulation=4)]


if __name__ == "__main__":
    main()
