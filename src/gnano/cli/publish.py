"""`gnano publish`: a model on the Hugging Face Hub, with a card of how it was made."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.utils.terminal import echo


def publish(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    repo: Annotated[str, tyro.conf.Positional],
    private: bool = False,
    dry_run: bool = False,
    update: bool = False,
    license: str = "",
    language: tuple[str, ...] = (),
    include: tuple[Path, ...] = (),
    prompts: tuple[str, ...] = (),
    out: Path | None = None,
) -> None:
    """Publish a model on the Hugging Face Hub: weights, tokenizer, and a card of how it was made.

    examples:
      gnano publish runs/demo me/my-demo --dry-run          the folder, to look at; nothing is sent
      gnano publish runs/demo me/my-demo --private
      gnano publish runs/demo me/my-demo --include demo.gguf onnx/
      gnano publish runs/demo-sft me/my-demo --update       over what is there

    The card, README.md, tells what the run knows: architecture, data, training, losses, and a few
    texts written for it. Edit it in the folder as you like: a README.md that is there is kept.
    The token comes from HF_TOKEN or `hf auth login`. Stopped, the same command goes on.

    Args:
        checkpoint: A run, a checkpoint, or a Hugging Face folder of a Llama model.
        repo: Where to: USER/NAME, or ORGANISATION/NAME.
        private: Make the repository one that only you can see.
        dry_run: Write the folder and say what would be sent, but send nothing.
        update: Replace files of a repository that holds others already.
        license: As the Hub spells it, such as mit; by default apache-2.0 for a model made from
            scratch, and none for one that began with weights of someone else.
        language: What it writes, such as en de; by default en where all data is known to be.
        include: Files or folders to publish beside it, such as what gnano export wrote.
        prompts: What the card's texts begin with, or the questions that are answered there.
        out: The folder to fill; by default published/NAME.
    """
    from gnano.export.publishing import publish

    done = publish(
        checkpoint,
        repo,
        private=private,
        license_id=license,
        languages=language,
        prompts=prompts,
        include=include,
        output_folder=out,
        allow_update=update,
        dry_run=dry_run,
    )
    echo(str(done))
