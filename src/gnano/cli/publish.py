"""The command `gnano publish`: uploads a model to the Hugging Face Hub, with a model card."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import ModelArg
from gnano.utils.terminal import echo


def publish(
    checkpoint: ModelArg,
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
    """Publish a model on the Hugging Face Hub: weights, tokenizer, and a model card.

    command examples:
      gnano publish runs/demo me/my-demo --dry-run          write the folder, send nothing
      gnano publish runs/demo me/my-demo --private
      gnano publish runs/demo me/my-demo --include demo.gguf onnx/
      gnano publish runs/demo-sft me/my-demo --update       replace existing files

    The card, README.md, states what is known of the run: architecture, data, training, losses, and
    a few samples. Edit it in the folder as you like: an existing README.md is kept. The token
    comes from HF_TOKEN or `hf auth login`. Interrupted, the same command resumes.

    Args:
        repo: The repository: USER/NAME, or ORGANIZATION/NAME.
        private: Make the repository private.
        dry_run: Write the folder and list what would be sent, but send nothing.
        update: Replace files of a repository that holds other files already.
        license: Its id on the Hub, such as mit; by default apache-2.0 if trained from scratch.
        language: Languages, such as en de; by default en if all data is known to be English.
        include: Files or folders to publish alongside, such as those gnano export wrote.
        prompts: Prompts of the card's samples, or questions for a chat model.
        out: The folder to fill; by default published/NAME.
    """
    from gnano.export.publishing import publish

    text = publish(
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
    echo(text)
