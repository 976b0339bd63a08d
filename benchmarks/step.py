"""How fast is a training step? Ours beside transformers' Llama, in the same process.

    python benchmarks/step.py [demo|10m]

Same shape, batch of 16 × 256, AdamW, clipping, random tokens, eager mode; the two take turns
and the medians are compared. The rate of a bare fp32 matrix product is the limit.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gnano.model import GPT, PRESETS, flops_per_token
from gnano.train.optimizer import AdamWConfig, adamw
from gnano.train.precision import DTYPES, choose_precision

BATCH, REPEATS = 16, 9


def step_of(
    model: torch.nn.Module, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> Callable[[], None]:
    optimizer = adamw(model, AdamWConfig())  # type: ignore[arg-type]

    def step() -> None:
        ids = torch.randint(0, 4_096, (BATCH, 257))
        loss_of(ids[:, :-1], ids[:, 1:]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def product() -> Callable[[], None]:
    a, b = torch.randn(1_024, 1_024), torch.randn(1_024, 1_024)

    def work() -> None:
        for _ in range(10):
            a @ b

    return work


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    shape = PRESETS[name]
    precision = choose_precision(torch.device("cpu"))
    ours = GPT.from_config(shape)
    ours.compute_dtype = DTYPES[precision]
    theirs = LlamaForCausalLM(LlamaConfig(**shape.to_hf()))
    tokens = BATCH * 256

    def their_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = theirs(x, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    work = {
        "gnano": step_of(ours, lambda x, y: ours.loss(x, y) / tokens),
        "transformers": step_of(theirs, their_loss),
        "limit: fp32 matrix product": product(),
    }
    times: dict[str, list[float]] = {what: [] for what in work}
    for repeat in range(REPEATS + 1):
        for what, run in work.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                times[what].append(time.perf_counter() - start)
    print(f"shape {name}, {precision}, {torch.get_num_threads()} threads, medians of {REPEATS}")
    base = statistics.median(times["gnano"])
    for what, taken in times.items():
        median = statistics.median(taken)
        limit = what.startswith("limit")
        flops = 10 * 2 * 1_024**3 if limit else tokens * flops_per_token(shape)
        speed = "" if limit else f"{tokens / median:9,.0f} tokens/s  {base / median:5.2f} × gnano"
        print(f"  {what:<27} {flops / median / 1e9:6.0f} GFLOP/s  {speed}")


if __name__ == "__main__":
    main()
