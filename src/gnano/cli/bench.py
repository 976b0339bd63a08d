"""`gnano bench`: how fast a checkpoint writes."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gnano.cli.args import LoadArgs
from gnano.config.inference_config import LoadConfig
from gnano.utils.terminal import echo
from gnano.utils.text import dump_json

if TYPE_CHECKING:
    from gnano.infer.throughput import ThroughputReport


def bench(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    texts: tuple[int, ...] = (1, 8, 32),
    prompt: int = 128,
    tokens: int = 64,
    json_: Annotated[bool, tyro.conf.arg(name="json", help="For programs.")] = False,
    load_config: LoadArgs = LoadConfig(),  # noqa: B008 frozen
) -> None:
    """Measure how fast a checkpoint reads a prompt and writes, and what the memory would allow.

    examples:
      gnano bench runs/demo
      gnano bench runs/1b --quant int8 --texts 1 64
      gnano bench runs/1b --json > speed.json

    Args:
        checkpoint: A run, a checkpoint, or a Hugging Face folder of a Llama model.
        texts: Written side by side, measured one after another.
        prompt: Tokens of each prompt.
        tokens: Tokens written after it.
        loading: How the weights are kept.
    """
    import time

    from gnano.infer.engine import Engine
    from gnano.infer.throughput import measure_throughput
    from gnano.train.logging.metrics_logger import peak_memory_bytes
    from gnano.utils.progress import StatusLine

    started = time.perf_counter()
    engine = Engine.load(checkpoint, **asdict(load_config))
    loaded = time.perf_counter() - started
    with closing(StatusLine()) as line:
        speed = measure_throughput(engine, texts, prompt, tokens, line.update)
    peak = peak_memory_bytes(engine.device) / 1e9
    if json_:
        steps = [
            {**asdict(one), "share_of_memory": speed.bandwidth_share(one)} for one in speed.steps
        ]
        more = {"prefill_tokens_per_s": speed.prefill_tokens_per_s, "load_s": loaded}
        echo(dump_json({**asdict(speed), **more, "steps": steps, "peak_gb": peak}))
    else:
        _print_report(speed, loaded, peak)


def _print_report(speed: "ThroughputReport", loaded: float, peak: float) -> None:
    echo(f"loaded in                     {loaded:8.2f} s")
    echo(f"first token of {speed.prompt_tokens:,} read".ljust(30) + f"{speed.first_token_s:8.3f} s")
    echo(f"prompt                        {speed.prefill_tokens_per_s:8,.0f} tokens/s")
    for one in speed.steps:
        name = "a text alone" if one.batch_size == 1 else f"{one.batch_size} texts side by side"
        share = speed.bandwidth_share(one)
        echo(f"{name:<30}{one.tokens_per_s:8,.1f} tokens/s   {share:4.0%} of the memory's speed")
    echo(
        f"memory                        {speed.read_bytes_per_s / 1e9:8.1f} GB/s, read by a plain "
        f"sum; a step reads {speed.weight_bytes / 1e9:.3f} GB of weights"
    )
    echo(f"most memory held              {peak:8.2f} GB")
