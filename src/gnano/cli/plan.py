"""`gnano plan`: what a recipe costs on GPUs, and whether it fits, before one is rented."""

from gnano.cli.args import parse_recipe
from gnano.utils.terminal import echo
from gnano.utils.text import dump_json

DESCRIPTION = """\
Say what a recipe needs and costs: parameters, FLOPs, memory by part, tokens/s, hours, money.

Nothing is computed and no GPU is needed. Memory is predicted, speed is an expectation; where
it will not fit, the first change that helps is named. Without --gpu there is the table of all
known GPUs alone. Any value of the recipe can be changed under its dotted name.

examples:
  gnano plan 1b                                     on every known GPU
  gnano plan 1b --gpu h200 --gpus 2 --price 3.5
  gnano plan 1b --gpu rtx-4090 --train.micro-batch-size 4 --train.activation_checkpointing
  gnano plan 350m --gpu h100 --train.precision fp8 --mfu 0.4 --json
"""


def main(argv: list[str]) -> int:
    recipe, own = parse_recipe(
        "plan",
        DESCRIPTION,
        argv,
        gpu=(str | None, None, "a GPU's name, such as h200 or 'NVIDIA H200'"),
        gpus=(int, 1, "how many of them"),
        price=(float | None, None, "dollars a GPU-hour"),
        mfu=(float | None, None, "share of the bf16 peak to reckon with, instead of the expected"),
        json=(bool, False, "print all figures as JSON"),
    )
    from gnano.reporting.cost_plan import plan_cost
    from gnano.reporting.cost_plan_text import format_plan

    found = plan_cost(recipe, own.gpu, own.gpus, own.price, own.mfu)
    echo(dump_json(found.as_dict(), indent=2) if own.json else format_plan(found))
    return 0
