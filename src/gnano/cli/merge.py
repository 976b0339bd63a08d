"""`gnano merge`: a base model and an adapter, made one model."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.utils.terminal import echo


def merge(
    base: Annotated[Path, tyro.conf.Positional],
    adapter: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
) -> None:
    """Add a LoRA adapter to the model that it was made for: an ordinary model, and as fast.

    examples:
      gnano merge runs/1b runs/1b-sft shared/1b-sft                    what gnano sft learned
      gnano merge runs/1b downloads/adapter shared/1b-mine             what PEFT wrote
      gnano generate shared/1b-mine "Once upon a time"

    For an adapter that comes without its model: the checkpoints of a run with train.lora hold
    the merged model already. The adapter's tokenizer and chat template, where it has some, take
    the place of the base's.

    Args:
        base: The model that the adapter changes: a run, a checkpoint, or a Hugging Face folder.
        adapter: A folder as PEFT writes it, or a run or checkpoint of a model tuned by LoRA.
        out: The folder to make; it must not be there yet.
    """
    from gnano.checkpoint.export_weights import merge_adapter

    folder = merge_adapter(base, adapter, out)
    files = [file for file in folder.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    echo(f"{folder}: {len(files)} files, {size / 1e9:.2f} GB")
