"""`gnano smoke`: does a checkpoint write at all sensibly?"""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import LoadArgs
from gnano.config.inference_config import LoadConfig
from gnano.utils.terminal import echo, echo_stderr
from gnano.utils.text import dump_json


def smoke(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    format: str = "text",
    temperatures: tuple[float, ...] = (0.7, 1.0),
    tokens: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None,
    seed: int = 0,
    data: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json", help="For programs.")] = False,
    load_config: LoadArgs = LoadConfig(),  # noqa: B008 frozen
) -> int:
    """Let a model write twelve texts, and judge each: OK, WEAK or FAIL; exit code 1 if one fails.

    examples:
      gnano smoke runs/demo
      gnano smoke runs/demo-sft --format own
      gnano smoke some-tuned-model --format alpaca --temperatures 0.3
      gnano smoke runs/1b --data data/1b           and what is copied from there
      gnano smoke runs/1b --json > smoke.json && echo "it writes"

    Args:
        checkpoint: A run, a checkpoint, or a Hugging Face folder of a Llama model.
        format: text: beginnings to continue. For a tuned model, instructions: own is the template
            that it was tuned with; or alpaca, chatml, plain, or a file.
        temperatures: At each of them all six prompts are written once.
        tokens: Of a text at most; by default 120, or 256 of an answer, which is to end.
        seed: Same seed, same texts.
        data: Prepared folder; the longest span of each text that its training shards hold is told.
        loading: How the weights are kept.
    """
    from gnano.evals.smoke_test import run_smoke_test
    from gnano.utils.progress import StatusLine

    with closing(StatusLine()) as line:
        found = run_smoke_test(
            checkpoint, format, temperatures, tokens, seed, load_config, data, line.update
        )
    if found.note:
        echo_stderr(found.note)
    if json_:
        echo(dump_json(found.to_dict(), ensure_ascii=False))
    else:
        echo(f"{found.format_table()}\n\n{found.format_texts()}")
    return int(found.has_failures)
