"""Time of a training step, compared with transformers and litgpt, each in its best setup.

    python benchmarks/step.py [demo|10m] [--batch 16] [--rounds 9] [--only "bf16 compiled"]

A step is forward, backward, clipping and fused AdamW on random tokens, T = 256. Each setup runs in
its own process, as a user would run it, and they take turns: first all of them for a few steps,
then gnano, the best setup of each library and the limits for the rounds. The reported figure is the
median of the ratios within a round, because other programs may use the machine.

    gnano         bf16 compute, fp32 master weights; eager, and blocks compiled
    the others    {fp32, autocast, pure bf16} × {eager, torch.compile of model and loss}
    the limits    the step's own matrix products only; a bf16 product of 1,024 × 1,024

In pure bf16, weights and moments are bf16 too: less work than gnano's, and less precise. litgpt's
rows are omitted if it is not installed (`pip install --no-deps litgpt`).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnano.config.hf_config import write_hf_config
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.model.flops import flops_per_token
from gnano.model.transformer import GPT
from gnano.utils.platform_support import disable_malloc_trim

T = 256
QUALIFYING_STEPS = 3  # steps of each setup in the first comparison
GNANO = ["gnano bf16 compiled", "gnano bf16 eager"]
LIMITS = ["limit: the step's products", "limit: product of 1,024³"]
Step = Callable[[], None]


def list_setups() -> list[str]:
    libraries = ["transformers"] + (["litgpt"] if find_spec("litgpt") else [])
    modes = [f"{p} {mode}" for p in ("fp32", "autocast", "bf16") for mode in ("eager", "compiled")]
    return GNANO + [f"{library} {mode}" for library in libraries for mode in modes]


def gnano_step(shape: ModelConfig, batch: int, mode: str) -> Step:
    disable_malloc_trim()  # as the trainer does on a CPU
    model = GPT.from_config(shape)
    model.compute_dtype = torch.bfloat16
    if mode == "compiled":
        model.compile_blocks()
    return make_step(model, lambda x, y: model.loss(x, y) / y.numel(), batch)


def library_step(library: str, precision: str, mode: str, shape: ModelConfig, batch: int) -> Step:
    model, logits_of = (llama if library == "transformers" else litgpt)(shape)
    if precision == "bf16":
        model.bfloat16()

    def loss(x_BT: Tensor, y_BT: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            logits = logits_of(x_BT)
        return F.cross_entropy(logits.flatten(0, 1).float(), y_BT.flatten())

    return make_step(model, torch.compile(loss) if mode == "compiled" else loss, batch)


def llama(shape: ModelConfig) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config: dict[str, Any] = {**write_hf_config(shape), "attn_implementation": "sdpa"}
    model = LlamaForCausalLM(LlamaConfig(**config))
    return model, lambda x_BT: model(x_BT, use_cache=False).logits


def litgpt(shape: ModelConfig) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor]]:
    import litgpt

    model: Any = litgpt.GPT(
        litgpt.Config(
            block_size=shape.block_size,
            n_layer=shape.n_layer,
            n_embd=shape.n_embd,
            vocab_size=shape.vocab_size,
            padded_vocab_size=shape.padded_vocab_size,
            n_head=shape.n_head,
            n_query_groups=shape.n_kv_head,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            norm_eps=shape.norm_eps,
            mlp_class_name="LLaMAMLP",
            intermediate_size=shape.ffn_hidden,
            rope_base=int(shape.rope_theta),
        )
    )
    return model, model


def make_step(
    model: torch.nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], batch: int
) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def step() -> None:
        ids_BT = torch.randint(0, 4_096, (batch, T + 1))
        loss_of(ids_BT[:, :-1], ids_BT[:, 1:]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def product_step(shape: ModelConfig, batch: int) -> Step:
    """Return a step of only the layers' products with their weights, forward and backward.

    The outputs are preallocated, which a real step cannot do. Attention is not included.
    """
    D, F_, KE = shape.n_embd, shape.ffn_hidden, shape.n_kv_head * shape.head_size
    block = [(D, D), (D, KE), (D, KE), (D, D), (D, F_), (D, F_), (F_, D)]
    sizes = block * shape.n_layer + [(D, shape.padded_vocab_size)]
    tensors: dict[tuple[int, int], list[Tensor]] = {}
    for i, o in set(sizes):
        pairs = [(batch * T, i), (o, i), (batch * T, o), (batch * T, i), (o, i), (batch * T, o)]
        tensors[i, o] = [torch.randn(pair, dtype=torch.bfloat16) for pair in pairs]

    def step() -> None:
        for size in sizes:
            x, w, grad, to_x, to_w, y = tensors[size]
            torch.mm(x, w.T, out=y)
            torch.mm(grad, w, out=to_x)
            torch.mm(grad.T, x, out=to_w)

    return step


def square_step() -> Step:
    a = torch.randn(1_024, 1_024, dtype=torch.bfloat16)
    y = torch.empty_like(a)

    def step() -> None:
        for _ in range(10):
            torch.mm(a, a, out=y)

    return step


def serve(setup: str, name: str, batch: int) -> None:
    """Take a step for each line of input and print its seconds."""
    shape = PRESETS[name]
    torch.manual_seed(0)
    if setup == LIMITS[0]:
        step = product_step(shape, batch)
    elif setup == LIMITS[1]:
        step = square_step()
    elif setup in GNANO:
        step = gnano_step(shape, batch, setup.split()[-1])
    else:
        library, precision, mode = setup.split()
        step = library_step(library, precision, mode, shape, batch)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, flush=True)


class Runner:
    """A setup in its own process, which waits between its turns."""

    def __init__(self, setup: str, name: str, batch: int) -> None:
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, "--batch", str(batch), "--setup", setup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.is_running = self._line() == "ready"
        self.start = time.perf_counter() - started  # seconds: import, compilation, two steps
        self.qualifying: list[float] = []
        self.times: list[float] = []

    def step(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("shape", nargs="?", default="demo", choices=["demo", "10m"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--only", default="", help="only other setups that contain one of these words"
    )
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.setup:
        return serve(args.setup, args.shape, args.batch)
    threads = torch.get_num_threads()
    print(f"{args.shape}, {args.batch} × {T}, {threads} threads, {os.cpu_count()} processors")
    if not find_spec("litgpt"):
        print("litgpt is not installed: its rows are omitted.")

    words = [word.strip() for word in args.only.split(",")]
    runners: dict[str, Runner] = {}
    for setup in [*list_setups(), *LIMITS]:
        if setup not in GNANO + LIMITS and not any(word in setup for word in words):
            continue
        runner = Runner(setup, args.shape, args.batch)
        if runner.is_running:
            runners[setup] = runner
        else:
            print(f"  {setup} does not run here.")
    for _ in range(QUALIFYING_STEPS):
        for runner in runners.values():
            runner.qualifying.append(runner.step())
    best: dict[str, str] = {}
    for setup in list_setups():
        library = setup.split()[0]
        if setup in runners and setup not in GNANO:
            fastest = best.setdefault(library, setup)
            if min(runners[setup].qualifying) < min(runners[fastest].qualifying):
                best[library] = setup
    final = [setup for setup in [*GNANO, *best.values(), *LIMITS] if setup in runners]
    for _ in range(args.rounds):
        for setup in final:
            runners[setup].times.append(runners[setup].step())
    for runner in runners.values():
        runner.end()
    report(runners, args.shape, args.batch, list(best.values()))
    return None


def report(runners: dict[str, Runner], name: str, batch: int, libraries: list[str]) -> None:
    per_token = flops_per_token(PRESETS[name], T)
    own = runners[GNANO[0]].times
    print("| setup | ms (from – to) | tokens/s | GFLOP/s | gnano is faster by | start |")
    print("|---|---|---|---|---|---|")
    for setup, runner in runners.items():
        times = runner.times or runner.qualifying
        median = statistics.median(times)
        span = f"{1e3 * median:,.0f} ({1e3 * min(times):,.0f} – {1e3 * max(times):,.0f})"
        ratio = ""
        if runner.times and setup != LIMITS[1]:
            paired = statistics.median(b / a for a, b in zip(own, times, strict=True))
            ratio = f"{paired:.2f} ×"
        speed = f"{batch * T / median:,.0f}"
        flops = per_token * batch * T
        if setup == LIMITS[0]:
            shape = PRESETS[name]
            flops -= 12 * shape.n_layer * shape.n_head * shape.head_size * T * T * batch
        if setup == LIMITS[1]:
            speed, flops = "", 10 * 2 * 1_024**3
        stage = "" if runner.times else ", qualifying"
        print(
            f"| {setup}{stage} | {span} | {speed} | {flops / median / 1e9:,.0f} | {ratio} "
            f"| {runner.start:.0f} s |"
        )
    if not libraries:
        return
    rounds = zip(*(runners[setup].times for setup in libraries), strict=True)
    ratios = [min(others) / one for one, others in zip(own, rounds, strict=True)]
    print(
        f"gnano against the fastest other of each round: {statistics.median(ratios):.2f} × "
        f"({min(ratios):.2f} – {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
