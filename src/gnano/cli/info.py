"""The command `gnano info`: describes a recipe, a data folder, a run or a checkpoint."""

from contextlib import closing
from typing import Annotated

import tyro

from gnano.utils.files import expand_path
from gnano.utils.terminal import StatusLine, echo


def info(target: Annotated[str, tyro.conf.Positional], verify: bool = False) -> None:
    """Describe a recipe, a data folder, a run or a checkpoint.

    command examples:
      gnano info 1b             parameters, FLOPs, bytes of the reference model
      gnano info data/demo      sources, tokens and mix of prepared data
      gnano info runs/demo      progress and results of a run
      gnano info runs/demo/checkpoints/step-00000100
      gnano info runs/demo --verify          every byte of all its checkpoints

    Args:
        target: A recipe's name or file, or the path of a folder made by gnano.
        verify: Verify checksums, not only sizes; of a run, all checkpoints. Exits with 2 on damage.
    """
    from gnano.reporting.description import describe, verify_checkpoints

    target = expand_path(target)
    echo(describe(target))
    with closing(StatusLine()) as line:
        for result in verify_checkpoints(target, line.update) if verify else ():
            line.close()
            echo(result)
