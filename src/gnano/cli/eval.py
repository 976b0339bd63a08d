"""`gnano eval`: how good a checkpoint is."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import EvalArgs, LoadArgs
from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.utils.terminal import echo, echo_stderr


def eval(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    eval_config: EvalArgs = EvalConfig(),  # noqa: B008 frozen
    harness: tuple[str, ...] = (),
    out: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json", help="Print JSON, no table.")] = False,
    load_config: LoadArgs = LoadConfig(),  # noqa: B008 frozen
) -> None:
    """Measure a checkpoint: bits per byte of held-out text, and the accuracy of known tasks.

    examples:
      gnano eval runs/1b                                     all eight tasks, from the Hub
      gnano eval runs/1b --tasks hellaswag arc_easy --limit 1000
      gnano eval runs/demo --tasks none                      held-out text alone, no download
      gnano eval runs/1b --files evals/*.jsonl               local items: TASK….jsonl, or TASK=PATH
      gnano eval runs/1b --tasks arc_challenge --shots 25
      gnano eval runs/1b --tasks hellaswag --overlap         which items were in the training data?
      gnano eval ~/SmolLM2-1.7B --tasks none --text book.txt
      gnano eval runs/1b --harness hellaswag winogrande      by lm-evaluation-harness

    tasks: hellaswag, arc_easy, arc_challenge, piqa, winogrande, lambada, openbookqa, boolq, as
    lm-evaluation-harness words them; of your own with --files mine=PATH, a line each
    {"query": …, "choices": […], "gold": 0}.

    Args:
        checkpoint: A run, a checkpoint, or the Hugging Face folder of any causal model.
        asked: What is measured.
        harness: Tasks that lm-evaluation-harness measures instead, on --files' items if any.
        out: The JSON file; by default in the run, or below evals/.
        loading: How the weights are kept.
    """
    from gnano.evals.harness import evaluate_with_lm_eval
    from gnano.evals.model_adapter import load_eval_model
    from gnano.evals.result_store import choose_result_path
    from gnano.evals.runner import evaluate, write_result
    from gnano.utils.progress import StatusLine

    with closing(StatusLine()) as line:
        if harness:
            found = evaluate_with_lm_eval(
                checkpoint, harness, eval_config, load_config, line.update
            )
        else:
            subject = load_eval_model(checkpoint, load_config, eval_config.add_bos)
            found = evaluate(subject, eval_config, line.update, line.print)
    path = out or choose_result_path(found)
    try:
        write_result(found, path)
    finally:  # where the file cannot be written, the result is not lost
        echo(found.to_json() if json_ else found.format_table())
    echo_stderr(f"\n{path}")
