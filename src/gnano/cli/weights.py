"""`gnano weights`: a checkpoint without what only training needs, to share."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.utils.terminal import echo


def weights(
    checkpoint: Annotated[Path, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional]
) -> None:
    """Copy the model and its tokenizer out of a checkpoint: a third of it, and all others need.

    examples:
      gnano weights runs/demo shared/demo                                 the newest checkpoint
      gnano weights runs/demo/checkpoints/step-00000100 shared/demo-100
      gnano generate shared/demo "Once upon a time"

    Every file is held against its checksum first. transformers, vLLM and llama.cpp's converter
    open the folder as it is; gnano pretrain cannot go on from it.

    Args:
        checkpoint: A run or a checkpoint.
        out: The folder to make; it must not be there yet.
    """
    from gnano.checkpoint.export_weights import export_weights

    folder = export_weights(checkpoint, out)
    files = [file for file in folder.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    echo(f"{folder}: {len(files)} files, {size / 1e9:.2f} GB")
