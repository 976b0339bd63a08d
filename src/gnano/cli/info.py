"""`gnano info`: what is in a recipe, a data folder, a run or a checkpoint."""

from typing import Annotated

import tyro

from gnano.cli.arguments import call


def info(what: Annotated[str, tyro.conf.Positional]) -> None:
    """Show what is in a recipe, a data folder, a run or a checkpoint.

    examples:
      gnano info 1b             parameters, FLOPs, bytes of the reference model
      gnano info data/demo      sources, tokens and mix of prepared data
      gnano info runs/demo      how far a run is and how well it does
      gnano info runs/demo/checkpoints/step-00000100

    Args:
        what: A recipe's name or file, or the path of a folder that this program made.
    """
    from gnano.report import describe

    print(describe(what))


def main(argv: list[str]) -> None:
    call(info, "info", argv)
