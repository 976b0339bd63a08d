"""The command `gnano weights`: copies a checkpoint's model into a folder to share."""

from gnano.cli.args import PathArg
from gnano.utils.terminal import echo


def weights(checkpoint: PathArg, out: PathArg) -> None:
    """Copy the model and its tokenizer out of a checkpoint, a third of its size.

    command examples:
      gnano weights runs/demo shared/demo                                 the newest checkpoint
      gnano weights runs/demo/checkpoints/step-00000100 shared/demo-100
      gnano generate shared/demo "Once upon a time"

    Every file is verified against its checksum first. transformers, vLLM and llama.cpp's converter
    read the folder as it is; gnano pretrain cannot resume from it.

    Args:
        checkpoint: A run or a checkpoint.
        out: The folder to make; it must not exist yet.
    """
    from gnano.checkpoint.export_weights import export_weights
    from gnano.reporting.description import describe_files

    echo(describe_files(export_weights(checkpoint, out)))
