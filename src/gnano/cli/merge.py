"""The command `gnano merge`: merges a LoRA adapter into its base model."""

from gnano.cli.args import PathArg, model_folder
from gnano.utils.terminal import echo


def merge(base: PathArg, adapter: PathArg, out: PathArg) -> None:
    """Merge a LoRA adapter into its base: the result is an ordinary model, and as fast.

    command examples:
      gnano merge runs/1b runs/1b-sft shared/1b-sft                    an adapter by gnano sft
      gnano merge runs/1b downloads/adapter shared/1b-mine             an adapter by PEFT
      gnano generate shared/1b-mine "Once upon a time"

    For an adapter that comes without its model: checkpoints of a run with train.lora hold the
    merged model already. The adapter's tokenizer and chat template, if it has them, replace those
    of the base.

    Args:
        base: The model that the adapter changes: a run, a checkpoint, or a Hugging Face folder.
        adapter: A folder in PEFT's format, or a run or checkpoint of a model tuned by LoRA.
        out: The folder to make; it must not exist yet.
    """
    from gnano.checkpoint.export_weights import merge_adapter
    from gnano.reporting.description import describe_files

    echo(describe_files(merge_adapter(model_folder(base), adapter, out)))
