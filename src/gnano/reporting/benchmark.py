"""Benchmarks a checkpoint's generation, and formats the result for people and programs."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from gnano.config.inference_config import LoadConfig
from gnano.infer.engine import Engine
from gnano.infer.throughput import ThroughputReport, measure_throughput
from gnano.train.logging.metrics_logger import peak_memory_bytes
from gnano.utils.files import dump_json
from gnano.utils.terminal import StatusLine


@dataclass(frozen=True)
class BenchmarkReport:
    """Throughput of a checkpoint, with its loading time and peak memory."""

    throughput: ThroughputReport
    load_s: float
    peak_gb: float

    def to_json(self) -> str:
        """Return all figures as one JSON object."""
        speed = self.throughput
        steps = [
            {**asdict(step), "share_of_memory": speed.bandwidth_share(step)} for step in speed.steps
        ]
        more = {"prefill_tokens_per_s": speed.prefill_tokens_per_s, "load_s": self.load_s}
        return dump_json({**asdict(speed), **more, "steps": steps, "peak_gb": self.peak_gb})

    def format_table(self) -> str:
        """Return one line per figure, for a terminal."""
        speed = self.throughput
        rows = [
            ("loaded in", f"{self.load_s:8.2f} s"),
            (f"first token of {speed.prompt_tokens:,} read", f"{speed.first_token_s:8.3f} s"),
            ("prompt", f"{speed.prefill_tokens_per_s:8,.0f} tokens/s"),
        ]
        for step in speed.steps:
            name = "one text" if step.batch_size == 1 else f"batch of {step.batch_size} texts"
            share = speed.bandwidth_share(step)
            rate = f"{step.tokens_per_s:8,.1f} tokens/s   {share:4.0%} of the memory bandwidth"
            rows.append((name, rate))
        bandwidth = (
            f"{speed.read_bytes_per_s / 1e9:8.1f} GB/s, measured with a plain sum; a step reads "
            f"{speed.weight_bytes / 1e9:.3f} GB of weights"
        )
        rows += [("memory bandwidth", bandwidth), ("peak memory", f"{self.peak_gb:8.2f} GB")]
        return "\n".join(f"{label:<30}{value}" for label, value in rows)


def run_benchmark(
    checkpoint: Path,
    load_config: LoadConfig,
    batch_sizes: Sequence[int],
    prompt_tokens: int,
    new_tokens: int,
) -> BenchmarkReport:
    """Load the checkpoint and measure it with random prompts, at each batch size."""
    started = time.perf_counter()
    engine = Engine.load(checkpoint, **asdict(load_config))
    load_s = time.perf_counter() - started
    with closing(StatusLine()) as line:
        speed = measure_throughput(engine, batch_sizes, prompt_tokens, new_tokens, line.update)
    return BenchmarkReport(speed, load_s, peak_memory_bytes(engine.device) / 1e9)
