"""Completions of prompts (`gnano generate`) and generation speed (`gnano bench`), formatted.

Both load a checkpoint into the engine and return what the command prints, for people or as JSON.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gnano.config.inference_config import LoadConfig, SamplingParams
from gnano.infer.engine import Engine
from gnano.infer.request import Request
from gnano.infer.throughput import measure_throughput
from gnano.train.logging.metrics_logger import peak_memory_bytes
from gnano.utils.files import dump_json, read_text
from gnano.utils.terminal import StatusLine
from gnano.utils.validation import Range, check_number


def read_prompts(arguments: Sequence[str], file: Path | None, lines: bool) -> list[str]:
    """Return the prompts of the arguments, else of the file or of standard input.

    With `lines`, each line that is not blank is a prompt. Raises ValueError where there is none.
    """
    if arguments:
        if file or lines:
            raise ValueError("Prompts come as arguments or from a file, not both: leave one out.")
        return list(arguments)
    if file and str(file) != "-":
        text, name = read_text(file), str(file)
    elif file or not sys.stdin.isatty():
        text, name = read_text(None), "standard input"
    else:
        raise ValueError('There is no prompt: give one ("" starts a new text), a file, or a pipe.')
    if not lines and text:
        return [text.removesuffix("\n")]
    if not (prompts := [line for line in text.split("\n") if line.strip()]):
        raise ValueError(f"There is no prompt in {name}: it has no line with text.")
    return prompts


def iter_output(
    checkpoint: Path,
    load_config: LoadConfig,
    prompts: list[str],
    max_new_tokens: int,
    sampling: SamplingParams,
    stop: Sequence[str] = (),
    num_samples: int = 1,
    logprobs: int | None = None,
    context_shift: bool = False,
    as_json: bool = False,
) -> Iterator[str]:
    """Yield what `gnano generate` prints: one text in pieces as it is generated, or all at the end.

    Raises ValueError, before the model is loaded, for settings that are out of range.
    """
    check_number("samples", num_samples, Range(1))
    Request(prompt_ids=(), max_new_tokens=max_new_tokens, sampling=sampling, logprobs=logprobs)
    if logprobs is not None and not as_json:
        raise ValueError("Log-probabilities are printed with --json: add it, or leave them out.")
    engine = Engine.load(checkpoint, **asdict(load_config))
    if not as_json and num_samples == 1 and len(prompts) == 1:
        pieces = engine.stream_text(prompts[0], max_new_tokens, sampling, stop, context_shift)
        # the first piece comes first: a prompt that is refused must not be printed
        yield prompts[0] + next(pieces, "")
        yield from pieces
        yield "\n"
        return
    started, total = time.perf_counter(), len(prompts) * num_samples
    with closing(StatusLine()) as line:

        def show_progress(done: int) -> None:
            if line.is_terminal:
                line.update(f"{done} of {total} texts")

        groups = engine.generate_batch(
            prompts, max_new_tokens, sampling, stop, num_samples, logprobs, context_shift,
            show_progress,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    completions = [(p, one) for p, group in zip(prompts, groups, strict=True) for one in group]
    if not as_json:
        for number, (prompt, completion) in enumerate(completions, 1):
            yield f"── {number} of {total} {'─' * 40}\n{prompt}{completion.text}\n"
        return

    def decode(token: int) -> str:
        return engine.tokenizer.decode([token])

    entries: list[dict[str, Any]] = []
    for prompt, completion in completions:
        entry: dict[str, Any] = {
            "prompt": prompt,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "token_ids": completion.token_ids,
        }
        if completion.logprobs:
            entry["logprobs"] = [
                {
                    "token": decode(item.token_id),
                    "logprob": item.logprob,
                    "top": [[decode(token), value] for token, value in item.top_logprobs],
                }
                for item in completion.logprobs
            ]
        entries.append(entry)
    tokens = sum(len(completion.token_ids) for _, completion in completions)
    result = {
        "completions": entries,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens / seconds, 1),
    }
    yield dump_json(result, ensure_ascii=False) + "\n"


def run_benchmark(
    checkpoint: Path,
    load_config: LoadConfig,
    batch_sizes: Sequence[int],
    prompt_tokens: int,
    new_tokens: int,
    as_json: bool = False,
) -> str:
    """Load the checkpoint, measure it with random prompts at each batch size, and format that.

    The text is a table with a line per figure, or one JSON object.
    """
    started = time.perf_counter()
    engine = Engine.load(checkpoint, **asdict(load_config))
    load_s = time.perf_counter() - started
    with closing(StatusLine()) as line:
        speed = measure_throughput(engine, batch_sizes, prompt_tokens, new_tokens, line.update)
    peak_gb = peak_memory_bytes(engine.device) / 1e9
    shares = [speed.bandwidth_share(step) for step in speed.steps]
    if as_json:
        figures = asdict(speed) | {
            "prefill_tokens_per_s": speed.prefill_tokens_per_s,
            "load_s": load_s,
            "steps": [
                {**asdict(step), "share_of_memory": share}
                for step, share in zip(speed.steps, shares, strict=True)
            ],
            "peak_gb": peak_gb,
        }
        return dump_json(figures)
    rows = [
        ("loaded in", f"{load_s:8.2f} s"),
        (f"first token of {speed.prompt_tokens:,} read", f"{speed.first_token_s:8.3f} s"),
        ("prompt", f"{speed.prefill_tokens_per_s:8,.0f} tokens/s"),
    ]
    for step, share in zip(speed.steps, shares, strict=True):
        name = "one text" if step.batch_size == 1 else f"batch of {step.batch_size} texts"
        rate = f"{step.tokens_per_s:8,.1f} tokens/s   {share:4.0%} of the memory bandwidth"
        rows.append((name, rate))
    bandwidth = (
        f"{speed.read_bytes_per_s / 1e9:8.1f} GB/s, measured with a plain sum; a step reads "
        f"{speed.weight_bytes / 1e9:.3f} GB of weights"
    )
    rows += [("memory bandwidth", bandwidth), ("peak memory", f"{peak_gb:8.2f} GB")]
    return "\n".join(f"{label:<30}{value}" for label, value in rows)
