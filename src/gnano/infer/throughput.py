"""How fast does it write, and how fast could it? Tokens a second beside what the memory gives.

A step reads each weight once, so a text alone can't be written faster than

    bytes the memory gives a second / bytes that a token reads

The input embedding is not read: of it a step takes one row.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.infer.continuous_batching import Request
from gnano.infer.engine import Engine
from gnano.model.flops import kv_cache_bytes_per_token
from gnano.model.transformer import GPT
from gnano.utils.validation import Range, check_number

GREEDY_SAMPLING = SamplingParams(temperature=0)
NO_EOS_TOKEN = -1  # an id that no token has: no text ends by itself
READ_BYTES = 2**28  # bytes that are read to measure the memory, far more than a cache holds
MAX_BENCH_BATCH = 4_096
NUM_ROUNDS = 5


@dataclass(frozen=True)
class DecodeThroughput:
    """Texts that are written side by side."""

    batch_size: int
    tokens_per_s: float  # of all of them together
    bytes_per_step: int  # weights, and the keys and values of half of the way


@dataclass(frozen=True)
class ThroughputReport:
    prompt_tokens: int  # tokens
    first_token_s: float  # from a prompt's ids to the first token
    steps: tuple[DecodeThroughput, ...]
    read_bytes_per_s: float  # what the memory gives, measured
    weight_bytes: int  # that a step reads

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.first_token_s

    def bandwidth_share(self, steps: DecodeThroughput) -> float:
        """Of the memory's bytes a second, those that these steps read."""
        return steps.bytes_per_step * steps.tokens_per_s / steps.batch_size / self.read_bytes_per_s


def measure_throughput(
    engine: Engine,
    batch_sizes: Sequence[int] = (1, 8, 32),
    prompt_tokens: int = 128,
    new_tokens: int = 64,
    on_progress: Callable[[str], None] = lambda _: None,
) -> ThroughputReport:
    """The median of a few rounds each; raises ValueError where the context has no room."""
    config = engine.model.config
    check_number("prompt", prompt_tokens, Range(1, MAX_COUNT))
    check_number("tokens", new_tokens, Range(2, MAX_COUNT))
    if not batch_sizes:
        raise ValueError("No number of texts is given; name one or more (--texts 1 8 32).")
    for count in batch_sizes:
        check_number("texts", count, Range(1, MAX_BENCH_BATCH))
    if prompt_tokens + new_tokens > config.block_size:
        raise ValueError(
            f"{prompt_tokens:,} + {new_tokens:,} tokens do not fit the model's context of "
            f"{config.block_size:,}: measure fewer (--prompt, --tokens)."
        )
    on_progress("what the memory gives")
    read = measure_read_bandwidth(engine.device)
    on_progress("prefill")
    first = median(_measure_first_token(engine, prompt_tokens) for _ in range(NUM_ROUNDS + 1))
    weights = count_weight_bytes(engine.model)
    dtype = engine.model.compute_dtype or engine.model.model.embed_tokens.weight.dtype
    found = []
    for count in sorted(batch_sizes):
        on_progress(f"{count} texts side by side")
        if count > 1:
            engine.prepare_for_batching()
        per_s = _measure_tokens_per_s(engine, count, prompt_tokens, new_tokens)
        half = (
            count
            * (prompt_tokens + new_tokens // 2)
            * kv_cache_bytes_per_token(config, dtype.itemsize)
        )
        found.append(DecodeThroughput(count, per_s, weights + half))
    return ThroughputReport(prompt_tokens, first, tuple(found), read, weights)


def count_weight_bytes(model: GPT) -> int:
    """What one step reads of the model: all of it but the input embedding."""
    tensors = [*model.parameters(), *model.buffers()]
    embedding = model.model.embed_tokens.weight
    return sum(t.numel() * t.element_size() for t in tensors if t is not embedding)


def _random_prompts(engine: Engine, count: int, length: int) -> list[tuple[int, ...]]:
    """Different ones: what several have in common is computed once."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(engine.tokenizer.vocab_size, (count, length), generator=generator)
    return [tuple(row) for row in ids.tolist()]


def _measure_first_token(engine: Engine, prompt: int) -> float:
    batch = engine.new_batch(1, prompt, eos_token_id=NO_EOS_TOKEN)
    batch.add(
        Request(
            prompt_ids=_random_prompts(engine, 1, prompt)[0],
            max_new_tokens=1,
            sampling=GREEDY_SAMPLING,
        )
    )
    started = time.perf_counter()
    batch.step()  # it gives ids, so a GPU has been waited for
    return time.perf_counter() - started


def _measure_tokens_per_s(engine: Engine, count: int, prompt: int, tokens: int) -> float:
    batch = engine.new_batch(count, prompt + tokens, eos_token_id=NO_EOS_TOKEN)
    for ids in _random_prompts(engine, count, prompt):
        batch.add(Request(prompt_ids=ids, max_new_tokens=tokens, sampling=GREEDY_SAMPLING))
    while batch.waiting:
        batch.step()  # the prompts, and the first token of each
    took = []
    while batch:
        rows = len(batch.active)
        started = time.perf_counter()
        batch.step()
        took.append((time.perf_counter() - started) / rows)
    return 1 / median(took)


def measure_read_bandwidth(device: torch.device) -> float:
    """What the memory gives to one who only reads it: the best of a few sums."""
    memory = torch.ones(READ_BYTES // 4, device=device)
    took = []
    for _ in range(NUM_ROUNDS + 1):
        started = time.perf_counter()
        memory.sum().item()
        took.append(time.perf_counter() - started)
    return READ_BYTES / min(took)
