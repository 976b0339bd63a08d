"""The command `gnano smoke`: checks that a checkpoint writes sensible text."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import JsonFlag, LoadArgs, ModelArg, model_folder
from gnano.config.inference_config import LoadConfig
from gnano.utils.files import dump_json
from gnano.utils.terminal import StatusLine, echo, echo_stderr


def smoke(
    checkpoint: ModelArg,
    format: str = "text",
    temperatures: tuple[float, ...] = (0.7, 1.0),
    tokens: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None,
    seed: int = 0,
    data: Path | None = None,
    json_: JsonFlag = False,
    load_config: LoadArgs = LoadConfig(),
) -> int:
    """Generate twelve texts and grade each: OK, WEAK or FAIL; exit code 1 if one fails.

    command examples:
      gnano smoke runs/demo
      gnano smoke runs/demo-sft --format own
      gnano smoke some-tuned-model --format alpaca --temperatures 0.3
      gnano smoke runs/1b --data data/1b           and look for copied training text
      gnano smoke runs/1b --json > smoke.json && echo "it writes"

    Args:
        format: text: prompts to continue. For a tuned model, instructions: own is the template
            used in its fine-tuning; or alpaca, chatml, plain, or a file.
        temperatures: All six prompts are run once at each temperature.
        tokens: Maximum tokens per text; by default 120, or 256 for an answer, which should end.
        seed: The same seed gives the same texts.
        data: Prepared folder; reports the longest span of each text found in its training shards.
    """
    from gnano.evals.smoke_test import run_smoke_test

    checkpoint = model_folder(checkpoint)
    with closing(StatusLine()) as line:
        report = run_smoke_test(
            checkpoint, format, temperatures, tokens, seed, load_config, data, line.update
        )
    if report.note:
        echo_stderr(report.note)
    text = f"{report.format_table()}\n\n{report.format_texts()}"
    echo(dump_json(report.to_dict(), ensure_ascii=False) if json_ else text)
    return int(report.counts["FAIL"] > 0)
