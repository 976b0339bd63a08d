"""Estimate what a recipe needs and costs: parameters, FLOPs, memory, tokens/s, hours, money.

No training runs and no GPU is needed. Memory is predicted, speed is an expectation; if it will
not fit, the first change that helps is named. Without --gpu only the table of all known GPUs is
printed. Any value of the recipe can be changed under its dotted name.

command examples:
  gnano plan 1b                                     on every known GPU
  gnano plan 1b --gpu h200 --gpus 2 --price 3.5
  gnano plan 1b --gpu rtx-4090 --train.micro-batch-size 4 --train.activation-checkpointing
  gnano plan 350m --gpu h100 --train.precision fp8 --mfu 0.4 --json
"""

from gnano.cli.args import parse_recipe
from gnano.utils.files import dump_json
from gnano.utils.terminal import echo


def main(argv: list[str]) -> None:
    """Print the plan as text or as JSON."""
    recipe, options = parse_recipe(
        "plan",
        __doc__,
        argv,
        gpu=(str | None, None, "a GPU's name, such as h200 or 'NVIDIA H200'"),
        gpus=(int, 1, "number of GPUs"),
        price=(float | None, None, "dollars per GPU-hour"),
        mfu=(float | None, None, "share of the bf16 peak to assume, instead of the expected one"),
        json=(bool, False, "print all figures as JSON"),
    )
    from gnano.reporting.cost_plan import format_plan, plan_cost

    plan = plan_cost(recipe, options.gpu, options.gpus, options.price, options.mfu)
    echo(dump_json(plan.as_dict(), indent=2) if options.json else format_plan(plan))
