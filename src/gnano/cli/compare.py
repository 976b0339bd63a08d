"""`gnano compare`: models side by side, and what others published of theirs."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import EvalArgs, LoadArgs
from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.utils.terminal import echo, echo_stderr


def compare(
    models: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    eval_config: EvalArgs = EvalConfig(),  # noqa: B008 frozen
    published: bool = True,
    all_published: bool = False,
    plot: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json", help="Print JSON, no table.")] = False,
    load_config: LoadArgs = LoadConfig(),  # noqa: B008 frozen
) -> None:
    """Put models side by side under the same settings, with published scores of the same tasks.

    examples:
      gnano compare runs/1b runs/1b-fast                     what is saved, else all eight tasks
      gnano compare runs/1b ~/SmolLM2-1.7B ~/pythia-1b --tasks hellaswag piqa --limit 1000
      gnano compare runs/1b runs/1b-sft --files evals/*.jsonl --plot compared.png
      gnano compare runs/1b ~/pythia-1b --tasks none --text book.txt      bits per byte alone
      gnano compare runs/1b/checkpoints/step-000{1,2,3}0000 --tasks arc_easy
      gnano compare --tasks hellaswag                        the published scores alone
      gnano compare runs/1b runs/1b-fast --json | jq .differences

    Results that gnano eval or an earlier comparison has saved are used again, if they are of the
    same settings and neither weights nor items are newer. For two models each difference is told,
    and whether it is more than two standard errors.

    Args:
        models: Runs, checkpoints, or Hugging Face folders of any causal models.
        asked: What is measured.
        published: Show what others published of their models.
        all_published: All of those, not only the nearest in parameters and tokens.
        plot: A picture as well, as PNG: accuracy over tokens, a panel a task.
        loading: How the weights are kept.
    """
    from gnano.evals.comparison import compare_models
    from gnano.evals.comparison_plot import check_plot_path, plot_comparison
    from gnano.evals.comparison_table import format_comparison
    from gnano.utils.progress import StatusLine

    check_plot_path(plot)
    with closing(StatusLine()) as line:
        found = compare_models(
            models, eval_config, load_config, published, all_published, line.update, line.print
        )
    width = shutil.get_terminal_size((100, 24)).columns
    echo(found.to_json() if json_ else format_comparison(found, width))
    if plot:
        plot_comparison(found, plot)
        echo_stderr(f"\n{plot}")
