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

from gnano.infer.batch import Request
from gnano.infer.engine import Engine
from gnano.infer.sampling import MOST, Sampling
from gnano.model.arithmetic import kv_cache_bytes_per_token
from gnano.model.gpt import GPT
from gnano.utils.ranges import Range, check_number

GREEDY = Sampling(temperature=0)
NEVER = -1  # an id that no token has: no text ends by itself
READ = 2**28  # bytes that are read to measure the memory, far more than a cache holds
MOST_TEXTS = 4_096
ROUNDS = 5


@dataclass(frozen=True)
class Steps:
    """Texts that are written side by side."""

    texts: int
    tokens_per_s: float  # of all of them together
    bytes_per_step: int  # weights, and the keys and values of half of the way


@dataclass(frozen=True)
class Speed:
    prompt: int  # tokens
    first_token_s: float  # from a prompt's ids to the first token
    steps: tuple[Steps, ...]
    read_bytes_per_s: float  # what the memory gives, measured
    weight_bytes: int  # that a step reads

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prompt / self.first_token_s

    def share(self, steps: Steps) -> float:
        """Of the memory's bytes a second, those that these steps read."""
        return steps.bytes_per_step * steps.tokens_per_s / steps.texts / self.read_bytes_per_s


def measure(
    engine: Engine,
    texts: Sequence[int] = (1, 8, 32),
    prompt: int = 128,
    tokens: int = 64,
    show: Callable[[str], None] = lambda _: None,
) -> Speed:
    """The median of a few rounds each; raises ValueError where the context has no room."""
    config = engine.model.config
    check_number("prompt", prompt, Range(1, MOST))
    check_number("tokens", tokens, Range(2, MOST))
    if not texts:
        raise ValueError("No number of texts is given; name one or more (--texts 1 8 32).")
    for count in texts:
        check_number("texts", count, Range(1, MOST_TEXTS))
    if prompt + tokens > config.block_size:
        raise ValueError(
            f"{prompt:,} + {tokens:,} tokens do not fit the model's context of "
            f"{config.block_size:,}: measure fewer (--prompt, --tokens)."
        )
    show("what the memory gives")
    read = read_bytes_per_s(engine.device)
    show("prefill")
    first = median(_first_token_s(engine, prompt) for _ in range(ROUNDS + 1))
    weights = weight_bytes(engine.model)
    dtype = engine.model.compute_dtype or engine.model.model.embed_tokens.weight.dtype
    found = []
    for count in sorted(texts):
        show(f"{count} texts side by side")
        if count > 1:
            engine.expect_several()
        per_s = _tokens_per_s(engine, count, prompt, tokens)
        half = count * (prompt + tokens // 2) * kv_cache_bytes_per_token(config, dtype.itemsize)
        found.append(Steps(count, per_s, weights + half))
    return Speed(prompt, first, tuple(found), read, weights)


def weight_bytes(model: GPT) -> int:
    """What one step reads of the model: all of it but the input embedding."""
    tensors = [*model.parameters(), *model.buffers()]
    embedding = model.model.embed_tokens.weight
    return sum(t.numel() * t.element_size() for t in tensors if t is not embedding)


def _prompts(engine: Engine, count: int, length: int) -> list[tuple[int, ...]]:
    """Different ones: what several have in common is computed once."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(engine.tokenizer.vocab_size, (count, length), generator=generator)
    return [tuple(row) for row in ids.tolist()]


def _first_token_s(engine: Engine, prompt: int) -> float:
    batch = engine.batch(1, prompt, end=NEVER)
    batch.add(Request(ids=_prompts(engine, 1, prompt)[0], tokens=1, sampling=GREEDY))
    started = time.perf_counter()
    batch.step()  # it gives ids, so a GPU has been waited for
    return time.perf_counter() - started


def _tokens_per_s(engine: Engine, count: int, prompt: int, tokens: int) -> float:
    batch = engine.batch(count, prompt + tokens, end=NEVER)
    for ids in _prompts(engine, count, prompt):
        batch.add(Request(ids=ids, tokens=tokens, sampling=GREEDY))
    while batch.waiting:
        batch.step()  # the prompts, and the first token of each
    took = []
    while batch:
        rows = len(batch.rows)
        started = time.perf_counter()
        batch.step()
        took.append((time.perf_counter() - started) / rows)
    return 1 / median(took)


def read_bytes_per_s(device: torch.device) -> float:
    """What the memory gives to one who only reads it: the best of a few sums."""
    memory = torch.ones(READ // 4, device=device)
    took = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        memory.sum().item()
        took.append(time.perf_counter() - started)
    return READ / min(took)
