"""The command `gnano generate`: continues texts with a checkpoint."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import LoadArgs, ModelArg, SamplingArgs, TokensArg, model_folder
from gnano.config.inference_config import LoadConfig, SamplingParams
from gnano.utils.terminal import echo


def generate(
    checkpoint: ModelArg,
    prompt: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    tokens: TokensArg = 128,
    sampling: SamplingArgs = SamplingParams(),
    stop: tuple[str, ...] = (),
    samples: int = 1,
    file: Path | None = None,
    lines: bool = False,
    context_shift: bool = False,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
    logprobs: int | None = None,
    load_config: LoadArgs = LoadConfig(),
) -> None:
    """Continue texts with a run's newest checkpoint, or with another model.

    command examples:
      gnano generate runs/demo "Once upon a time"
      gnano generate runs/demo "def main(" -n 200 --temperature 0.6 --top-k 40 --seed 1
      gnano generate runs/demo "Question:" --stop Question: --temperature 0
      gnano generate runs/demo "Once" "It was" --samples 4        several, as one batch
      gnano generate runs/demo --file prompts.txt --lines --json  a prompt per line, JSON output
      echo "The function returns" | gnano generate runs/demo

    Args:
        prompt: The texts to continue; "" starts a new one. By default standard input, if piped.
        tokens: Maximum tokens to generate.
        stop: Strings that end a text; they are left out of it.
        samples: Continuations of each prompt.
        file: A file that holds the prompt; - is standard input.
        lines: Make each line of the file or of standard input a prompt.
        context_shift: When the context is full, drop its older half and continue.
        json_: Print one JSON document, with token ids, finish reasons and speed.
        logprobs: With --json: each token's log-probability, and this many alternatives.
    """
    from gnano.reporting.completions import iter_output, read_prompts

    prompts = read_prompts(prompt, file, lines)
    checkpoint = model_folder(checkpoint)
    for piece in iter_output(
        checkpoint, load_config, prompts, tokens, sampling, stop, samples, logprobs,
        context_shift, json_,
    ):  # fmt: skip
        echo(piece, end="")
