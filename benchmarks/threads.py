"""Thread settings on an idle machine and next to other load, relative to PyTorch's defaults.

    python benchmarks/threads.py [SHAPE] [ROUNDS]

OpenMP reads its variables when it is loaded, so each setting has its own process. They take turns,
one task at a time, first with nothing else running and then next to one busy loop per core. The
baseline in every row is PyTorch as installed: all cores, no variable set.

OMP_WAIT_POLICY=PASSIVE with one thread per core is what every gnano command uses.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

BATCH, LENGTH, TOKENS = 4, 256, 24
TASKS = {"train": "a training step of 4 × 256 tokens", "write": "24 generated tokens of one text"}
BASELINE = "PyTorch's defaults"
VARIABLES: dict[str, dict[str, str]] = {
    BASELINE: {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "gnano's: PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def serve(shape: str) -> None:
    """Answer input lines "TASK THREADS" with the seconds of the task on that many threads."""
    import torch  # before gnano, which would set its own policy

    from gnano.config.inference_config import SamplingParams
    from gnano.config.model_config import PRESETS
    from gnano.infer.continuous_batching import ContinuousBatch
    from gnano.infer.request import Request
    from gnano.infer.weight_formats import fuse_projections
    from gnano.model.transformer import GPT
    from gnano.train.resolve import choose_precision
    from gnano.train.train_step import COMPUTE_DTYPES

    config = PRESETS[shape]
    model, writer = GPT.from_config(config), GPT.from_config(config).eval()
    model.compute_dtype = COMPUTE_DTYPES[choose_precision(torch.device("cpu"))]
    fuse_projections(writer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids_BT = torch.randint(config.vocab_size, (BATCH, LENGTH))
    size = config.vocab_size
    tokenizer: Any = SimpleNamespace(vocab_size=size, eos_ids=(), id_bytes=[b""] * size)

    def train_step() -> None:
        (model.loss(ids_BT, ids_BT.roll(-1, 1)) / ids_BT.numel()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def generate() -> None:
        batch = ContinuousBatch(writer, tokenizer, max_length=LENGTH)
        batch.add(
            Request(
                prompt_ids=(1, 2, 3, 4),
                max_new_tokens=TOKENS,
                sampling=SamplingParams(temperature=0),
            )
        )
        while batch.active or batch.waiting:
            batch.step()

    for line in sys.stdin:
        name, threads = line.split()
        torch.set_num_threads(int(threads))
        start = time.perf_counter()
        train_step() if name == "train" else generate()
        print(time.perf_counter() - start, flush=True)


class Setting:
    """A process with environment variables that runs tasks."""

    def __init__(self, shape: str, variables: dict[str, str]) -> None:
        unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", shape],
            env={**env, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, task: str, threads: int) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{task} {threads}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def __enter__(self) -> "Setting":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    shape = sys.argv[1] if len(sys.argv) > 1 else "demo"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    cores = os.cpu_count() or 1
    print(f"shape {shape}, {cores} cores, medians of {rounds} (quartiles), settings taking turns")
    with ExitStack() as stack:
        settings = {
            (name, threads): (process, threads)
            for name, variables in VARIABLES.items()
            for process in [stack.enter_context(Setting(shape, variables))]
            for threads in dict.fromkeys((cores, 1))
        }
        for num_loops in (0, cores):
            with busy_loops(num_loops):
                for task, text in TASKS.items():
                    times: dict[tuple[str, int], list[float]] = {key: [] for key in settings}
                    for number in range(rounds + 1):
                        for key, (process, threads) in settings.items():
                            process.measure(task, threads)  # starts a pool of this size
                            seconds = process.measure(task, threads)
                            if number:
                                times[key].append(seconds)
                    print(
                        f"{text}, with {num_loops} busy loops"
                        if num_loops
                        else f"{text}, idle machine"
                    )
                    print_times(times, (BASELINE, cores))


def print_times(times: dict[tuple[str, int], list[float]], baseline: tuple[str, int]) -> None:
    for (name, threads), own in times.items():
        low, median, high = (1e3 * cut for cut in statistics.quantiles(own, n=4))
        ratio = statistics.median(b / a for a, b in zip(own, times[baseline], strict=True))
        plural = "s" if threads > 1 else ""
        print(
            f"  {name:<24} {threads:>2} thread{plural:<1}  {median:9.1f} ms "
            f"({low:.1f} … {high:.1f})  {ratio:6.2f} × the speed"
        )


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1:2] == ["--serve"] else main()
