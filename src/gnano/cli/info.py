"""`gnano info`: what is in a recipe, a data folder, a run or a checkpoint."""

from contextlib import closing
from typing import Annotated

import tyro

from gnano.utils.terminal import echo
from gnano.utils.text import expand_path


def info(target: Annotated[str, tyro.conf.Positional], verify: bool = False) -> None:
    """Show what is in a recipe, a data folder, a run or a checkpoint.

    examples:
      gnano info 1b             parameters, FLOPs, bytes of the reference model
      gnano info data/demo      sources, tokens and mix of prepared data
      gnano info runs/demo      how far a run is and how well it does
      gnano info runs/demo/checkpoints/step-00000100
      gnano info runs/demo --verify          every byte of all its checkpoints

    Args:
        what: A recipe's name or file, or the path of a folder that this program made.
        verify: Hold every file of a checkpoint, or of all of a run, against its checksum; without
            it only their sizes are looked at. Exit code 2 if one is damaged.
    """
    from gnano.reporting.description import describe, verify_checkpoints
    from gnano.utils.progress import StatusLine

    target = expand_path(target)
    echo(describe(target))
    with closing(StatusLine()) as line:
        for said in verify_checkpoints(target, line.update) if verify else ():
            line.close()
            echo(said)
