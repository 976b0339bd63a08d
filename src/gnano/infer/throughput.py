"""Generation speed: tokens per second, compared with what the memory bandwidth allows.

A decoding step reads each weight once, so a single text cannot be generated faster than

    memory bandwidth / bytes read per token

The input embedding does not count: a step reads one row of it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.engine import Engine
from gnano.infer.request import Request
from gnano.model.flops import kv_cache_bytes_per_token
from gnano.model.transformer import GPT
from gnano.utils.validation import Range, check_number

GREEDY_SAMPLING = SamplingParams(temperature=0)
READ_BYTES = 2**28  # read to measure a CPU's bandwidth; much larger than a cache
GPU_READ_BYTES = 2**32  # a GPU's cache has 50 MB or more
GPU_PASSES = 10  # reads in a row, so that starting the first one hardly counts
MAX_BENCH_BATCH = 4_096
NUM_ROUNDS = 5


@dataclass(frozen=True)
class DecodeThroughput:
    """The decoding speed at one batch size."""

    batch_size: int
    tokens_per_s: float  # of all sequences together
    bytes_per_step: int  # weights, and the KV cache half-way through generation


@dataclass(frozen=True)
class ThroughputReport:
    """The speed of prefill and decoding, and the memory bandwidth."""

    prompt_tokens: int
    first_token_s: float  # from the prompt's ids to the first token
    steps: tuple[DecodeThroughput, ...]
    read_bytes_per_s: float  # measured memory bandwidth
    weight_bytes: int  # read by a step

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second."""
        return self.prompt_tokens / self.first_token_s

    def bandwidth_share(self, steps: DecodeThroughput) -> float:
        """Return the share of the memory bandwidth that these steps use."""
        return steps.bytes_per_step * steps.tokens_per_s / steps.batch_size / self.read_bytes_per_s


def measure_throughput(
    engine: Engine,
    batch_sizes: Sequence[int] = (1, 8, 32),
    prompt_tokens: int = 128,
    new_tokens: int = 64,
    on_progress: Callable[[str], None] = lambda _: None,
) -> ThroughputReport:
    """Measure prefill and decoding; raises ValueError for numbers that do not fit the model."""
    config = engine.model.config
    check_number("prompt", prompt_tokens, Range(1, MAX_COUNT))
    check_number("tokens", new_tokens, Range(2, MAX_COUNT))
    if not batch_sizes:
        raise ValueError("No batch size is given; name one or more (--texts 1 8 32).")
    for count in batch_sizes:
        check_number("texts", count, Range(1, MAX_BENCH_BATCH))
    if prompt_tokens + new_tokens > config.block_size:
        raise ValueError(
            f"{prompt_tokens:,} + {new_tokens:,} tokens do not fit in the model's context of "
            f"{config.block_size:,}; reduce --prompt or --tokens."
        )
    on_progress("memory bandwidth")
    read = measure_read_bandwidth(engine.device)
    on_progress("prefill")
    first = median(
        _time_step(_start_batch(engine, 1, prompt_tokens, 1)) for _ in range(NUM_ROUNDS + 1)
    )
    weights = count_weight_bytes(engine.model)
    dtype = engine.model.compute_dtype or engine.model.model.embed_tokens.weight.dtype
    steps = []
    for count in sorted(batch_sizes):
        on_progress(f"{count} texts at a time")
        batch = _start_batch(engine, count, prompt_tokens, new_tokens)
        batch.step()  # prefill, and the first token of each
        times = []
        while batch.active:
            rows = len(batch.active)
            times.append(_time_step(batch) / rows)
        tokens = count * (prompt_tokens + new_tokens // 2)
        cache = tokens * kv_cache_bytes_per_token(config, dtype.itemsize)
        steps.append(DecodeThroughput(count, 1 / median(times), weights + cache))
    return ThroughputReport(prompt_tokens, first, tuple(steps), read, weights)


def count_weight_bytes(model: GPT) -> int:
    """Return the bytes of the model that a step reads: all but the input embedding."""
    tensors = [*model.parameters(), *model.buffers()]
    embedding = model.model.embed_tokens.weight
    return sum(t.numel() * t.element_size() for t in tensors if t is not embedding)


def _start_batch(engine: Engine, count: int, prompt: int, tokens: int) -> ContinuousBatch:
    """Return a batch with distinct random prompts, since equal ones are computed once."""
    batch = engine.new_batch(count, prompt + tokens, eos_ids=())  # so no text ends early
    batch.prefill_tokens = count * prompt  # all prompts in the first step
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(engine.tokenizer.vocab_size, (count, prompt), generator=generator)
    for row in ids.tolist():
        batch.add(Request(prompt_ids=tuple(row), max_new_tokens=tokens, sampling=GREEDY_SAMPLING))
    return batch


def _time_step(batch: ContinuousBatch) -> float:
    started = time.perf_counter()
    batch.step()  # it returns ids, and so waits for a GPU
    return time.perf_counter() - started


def measure_read_bandwidth(device: torch.device) -> float:
    """Return the memory bandwidth in bytes per second: the fastest of a few large sums.

    A GPU reads 4 GiB, or half of what is free, several times between two events of its own clock.
    Its peak of allocated memory is then counted anew, without this.
    """
    if device.type == "cuda":
        return _measure_gpu_bandwidth(device)
    memory = torch.ones(READ_BYTES // 4, device=device)
    times = []
    for _ in range(NUM_ROUNDS + 1):
        started = time.perf_counter()
        memory.sum().item()
        times.append(time.perf_counter() - started)
    return READ_BYTES / min(times)


def _measure_gpu_bandwidth(device: torch.device) -> float:
    free, _ = torch.cuda.mem_get_info(device)
    count = min(GPU_READ_BYTES, free // 2) // 4
    times: list[float] = []
    with torch.cuda.device(device):
        memory = torch.ones(count, device=device)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        start, end = events
        for _ in range(NUM_ROUNDS + 1):
            start.record()
            for _ in range(GPU_PASSES):
                memory.sum()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000 / GPU_PASSES)
        del memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return 4 * count / min(times)
