"""The command `gnano eval`: evaluates a checkpoint."""

from contextlib import closing
from pathlib import Path

from gnano.cli.args import EvalArgs, JsonFlag, LoadArgs, PathArg, model_folder
from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.utils.terminal import StatusLine, echo, echo_stderr


def eval(
    checkpoint: PathArg,
    eval_config: EvalArgs = EvalConfig(),
    harness: tuple[str, ...] = (),
    out: Path | None = None,
    json_: JsonFlag = False,
    load_config: LoadArgs = LoadConfig(),
) -> None:
    """Evaluate a checkpoint: bits per byte of held-out text, and accuracy on benchmark tasks.

    command examples:
      gnano eval runs/1b                                     all eight tasks, from the Hub
      gnano eval runs/1b --tasks hellaswag arc_easy --limit 1000
      gnano eval runs/demo --tasks none                      held-out text only, no download
      gnano eval runs/1b --files evals/*.jsonl               local items: TASK….jsonl, or TASK=PATH
      gnano eval runs/1b --tasks arc_challenge --shots 25
      gnano eval runs/1b --tasks hellaswag --check-contamination     items in the training data
      gnano eval ~/SmolLM2-1.7B --tasks none --text book.txt
      gnano eval runs/1b --harness hellaswag winogrande      with lm-evaluation-harness

    tasks: hellaswag, arc_easy, arc_challenge, piqa, winogrande, lambada, openbookqa, boolq, worded
    as in lm-evaluation-harness; your own task with --files mine=PATH, one item per line:
    {"query": …, "choices": […], "gold": 0}.

    Args:
        checkpoint: A run, a checkpoint, or the Hugging Face folder of any causal model.
        harness: Tasks for lm-evaluation-harness to evaluate instead, on items of --files if any.
        out: The JSON file; by default in the run, or below evals/.
    """
    from gnano.evals.harness import evaluate_with_lm_eval
    from gnano.evals.model_adapter import load_eval_model
    from gnano.evals.result_store import choose_result_path, write_result
    from gnano.evals.runner import evaluate

    checkpoint = model_folder(checkpoint)
    with closing(StatusLine()) as line:
        if harness:
            result = evaluate_with_lm_eval(
                checkpoint, harness, eval_config, load_config, line.update
            )
        else:
            model = load_eval_model(checkpoint, load_config, eval_config.add_bos)
            result = evaluate(model, eval_config, line.update, line.print)
    path = out or choose_result_path(result)
    try:
        write_result(result, path)
    finally:  # the result is printed even if the file cannot be written
        echo(result.to_json() if json_ else result.format_table())
    echo_stderr(f"\n{path}")
