"""The command `gnano bench`: measures how fast a checkpoint generates."""

from gnano.cli.args import JsonFlag, LoadArgs, ModelArg, model_folder
from gnano.config.inference_config import LoadConfig
from gnano.utils.terminal import echo


def bench(
    checkpoint: ModelArg,
    texts: tuple[int, ...] = (1, 8, 32),
    prompt: int = 128,
    tokens: int = 64,
    json_: JsonFlag = False,
    load_config: LoadArgs = LoadConfig(),
) -> None:
    """Measure how fast a checkpoint reads a prompt and generates, against the memory bandwidth.

    command examples:
      gnano bench runs/demo
      gnano bench runs/1b --quant int8 --texts 1 64
      gnano bench runs/1b --json > speed.json

    Args:
        texts: Batch sizes, measured one after another.
        prompt: Tokens per prompt.
        tokens: Tokens generated per prompt.
    """
    from gnano.reporting.completions import run_benchmark

    checkpoint = model_folder(checkpoint)
    echo(run_benchmark(checkpoint, load_config, texts, prompt, tokens, json_))
