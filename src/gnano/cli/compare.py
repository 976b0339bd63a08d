"""The command `gnano compare`: compares models with one another and with published scores."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import EvalArgs, JsonFlag, LoadArgs, model_folder
from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.utils.terminal import StatusLine, echo, echo_stderr


def compare(
    models: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    eval_config: EvalArgs = EvalConfig(),
    published: bool = True,
    all_published: bool = False,
    plot: Path | None = None,
    json_: JsonFlag = False,
    load_config: LoadArgs = LoadConfig(),
) -> None:
    """Compare models under the same settings, with published scores on the same tasks.

    command examples:
      gnano compare runs/1b runs/1b-fast                     saved results, or all eight tasks
      gnano compare runs/1b ~/SmolLM2-1.7B ~/pythia-1b --tasks hellaswag piqa --limit 1000
      gnano compare runs/1b runs/1b-sft --files evals/*.jsonl --plot compared.png
      gnano compare runs/1b ~/pythia-1b --tasks none --text book.txt      bits per byte only
      gnano compare runs/1b/checkpoints/step-000{1,2,3}0000 --tasks arc_easy
      gnano compare --tasks hellaswag                        published scores only
      gnano compare runs/1b runs/1b-fast --json | jq .differences

    Results that gnano eval or an earlier comparison has saved are reused if the settings are the
    same and neither weights nor items are newer. For two models, each difference is shown, and
    whether it exceeds two standard errors.

    Args:
        models: Runs, checkpoints, or Hugging Face folders of any causal models.
        published: Show published scores of other models.
        all_published: Show all of them, not only the nearest in parameters and tokens.
        plot: Also write a plot, as PNG: accuracy over tokens, a panel per task.
    """
    from gnano.evals.comparison import compare_models
    from gnano.evals.comparison_table import format_comparison
    from gnano.reporting.comparison_plot import check_plot_path, plot_comparison

    if plot:
        check_plot_path(plot)
    models = tuple(map(model_folder, models))
    with closing(StatusLine()) as line:
        result = compare_models(
            models, eval_config, load_config, published, all_published, line.update, line.print
        )
    width = shutil.get_terminal_size((100, 24)).columns
    echo(result.to_json() if json_ else format_comparison(result, width))
    if plot:
        plot_comparison(result, plot)
        echo_stderr(f"\n{plot}")
