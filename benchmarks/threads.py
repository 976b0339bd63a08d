"""Thread settings on a quiet machine and beside other work, as ratios to PyTorch's defaults.

    python benchmarks/threads.py [SHAPE] [ROUNDS]

OpenMP reads its variables when it is loaded, so that each setting has a process of its own. They
take turns, one piece of work at a time, first with nothing else running and then beside one busy
loop per core. The peer in every row is PyTorch as installed: all cores, no variable set.

OMP_WAIT_POLICY=PASSIVE, one thread per core, is what every command of gnano takes.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

BATCH, LENGTH, TOKENS = 4, 256, 24
WORK = {"train": "a training step of 4 × 256 tokens", "write": "24 tokens of one text"}
PEER = "PyTorch's defaults"
VARIABLES: dict[str, dict[str, str]] = {
    PEER: {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "gnano's: PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def serve(shape: str) -> None:
    """Answer lines of "WORK THREADS" with the seconds that the work took with so many threads."""
    import torch  # before gnano, whose own choice would else be made for every setting

    from gnano.config.inference_config import SamplingParams
    from gnano.config.model_config import PRESETS
    from gnano.infer.continuous_batching import ContinuousBatch, Request
    from gnano.infer.cpu_layers import fuse_projections
    from gnano.infer.throughput import NO_EOS_TOKEN
    from gnano.model.transformer import GPT
    from gnano.train.precision import COMPUTE_DTYPES, choose_precision

    config = PRESETS[shape]
    model, writer = GPT.from_config(config), GPT.from_config(config).eval()
    model.compute_dtype = COMPUTE_DTYPES[choose_precision(torch.device("cpu"))]
    fuse_projections(writer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids_BT = torch.randint(config.vocab_size, (BATCH, LENGTH))

    def train() -> None:
        (model.loss(ids_BT, ids_BT.roll(-1, 1)) / ids_BT.numel()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def write() -> None:
        batch = ContinuousBatch(writer, NO_EOS_TOKEN, max_length=LENGTH)
        batch.add(
            Request(
                prompt_ids=(1, 2, 3, 4),
                max_new_tokens=TOKENS,
                sampling=SamplingParams(temperature=0),
            )
        )
        while batch:
            batch.step()

    for line in sys.stdin:
        name, threads = line.split()
        torch.set_num_threads(int(threads))
        start = time.perf_counter()
        train() if name == "train" else write()
        print(time.perf_counter() - start, flush=True)


class Setting:
    """A process with these variables, asked to work with so many threads."""

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

    def seconds(self, work: str, threads: int) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{work} {threads}\n")
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
        for company in (0, cores):
            with busy_loops(company):
                for work, text in WORK.items():
                    times: dict[tuple[str, int], list[float]] = {key: [] for key in settings}
                    for number in range(rounds + 1):
                        for key, (process, threads) in settings.items():
                            process.seconds(work, threads)  # a pool of another size is new
                            seconds = process.seconds(work, threads)
                            if number:
                                times[key].append(seconds)
                    print(f"{text}, beside {company} busy loops" if company else f"{text}, alone")
                    show(times, (PEER, cores))


def show(times: dict[tuple[str, int], list[float]], peer: tuple[str, int]) -> None:
    for (name, threads), own in times.items():
        low, median, high = (1e3 * cut for cut in statistics.quantiles(own, n=4))
        ratio = statistics.median(b / a for a, b in zip(own, times[peer], strict=True))
        plural = "s" if threads > 1 else ""
        print(
            f"  {name:<24} {threads:>2} thread{plural:<1}  {median:9.1f} ms "
            f"({low:.1f} … {high:.1f})  {ratio:6.2f} × the speed"
        )


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1:2] == ["--serve"] else main()
