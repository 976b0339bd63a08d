"""Train the model of a recipe on the token shards that `gnano prepare` made.

Stopped with Ctrl-C or killed, the same command resumes from the last checkpoint and gives the
same weights, on a CPU bit for bit. If the recipe has changed since, the difference is shown;
--allow accepts changes by name.

command examples:
  gnano pretrain 10m
  gnano pretrain 10m --train.steps 200 --out runs/trial
  gnano pretrain mine.toml --train.schedule.peak 1e-3 --data.folder data/mine
  gnano pretrain 10m --train.eval-tasks hellaswag --train.eval-tasks-every 500   scores on the way
  gnano pretrain 10m --train.steps 20000 --allow train.steps           extend a run
  torchrun --standalone --nproc-per-node 8 -m gnano pretrain 1b        all GPUs of a machine
"""

from gnano.cli.args import parse_recipe, refuse_shape_flags, run_options, with_base_folder


def main(argv: list[str]) -> int | None:
    """Run the training, and write the run's report."""
    recipe, options = parse_recipe("pretrain", __doc__, argv, **run_options(argv))
    if recipe.train.init_from:
        refuse_shape_flags(argv)
        recipe = with_base_folder(recipe, options.out)
    else:
        _ = recipe.pretraining_data  # refuses a fine-tuning recipe, which needs a base
    from gnano.reporting.run_report import report_run, train_with_progress

    result = train_with_progress(recipe, options.out, options.allow)
    report_run(result)
    return result.stopped_by
