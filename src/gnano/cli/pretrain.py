"""`gnano pretrain`: train a recipe's model on its token shards."""

from contextlib import closing
from pathlib import Path

from gnano.cli.args import parse_recipe, refuse_shape_flags
from gnano.utils.terminal import best_effort, echo

DESCRIPTION = """\
Train the model of a recipe on the token shards that `gnano prepare` made.

Stopped with Ctrl-C or killed, the same command goes on from the last checkpoint and gives
the same weights, on a CPU bit for bit. Where the recipe has changed since, the difference is
shown, and --allow lets what it names through.

examples:
  gnano pretrain 10m
  gnano pretrain 10m --train.steps 200 --out runs/trial
  gnano pretrain mine.toml --train.schedule.peak 1e-3 --data.folder data/mine
  gnano pretrain 10m --train.eval_tasks hellaswag --train.eval-tasks-every 500   a score on the way
  gnano pretrain 10m --train.steps 20000 --allow train.steps           a run goes on for longer
  torchrun --standalone --nproc-per-node 8 -m gnano pretrain 1b        all GPUs of a machine
"""


def main(argv: list[str]) -> int:
    out = (Path | None, None, "where the run is written; by default runs/RECIPE")
    allow = (tuple[str, ...], (), "keys or tables of the recipe that may differ from the run's")
    recipe, own = parse_recipe("pretrain", DESCRIPTION, argv, out=out, allow=allow)
    if not recipe.train.init_from:
        _ = recipe.pretraining_data  # refuses a recipe that tunes, and has nothing to tune
    else:
        refuse_shape_flags(argv)
    from gnano.evals.train_eval import build_task_evaluator
    from gnano.reporting.html_report import write_html_report
    from gnano.train.logging.progress_bar import ProgressBar
    from gnano.train.trainer import train

    run = own.out or Path("runs") / Path(argv[0]).stem
    progress = ProgressBar()
    with closing(progress.line):
        result = train(
            recipe, run, progress.update, progress.show_message, own.allow, build_task_evaluator
        )
    if result.is_main:
        echo(f"{result.step:,} of {result.total_steps:,} steps done; {result.checkpoint}")
        with best_effort("page of the run"):
            echo(f"The run as a page: {write_html_report(result.run)}")
    return 128 + result.stopped_by if result.stopped_by else 0
