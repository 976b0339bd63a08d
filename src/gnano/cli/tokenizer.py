"""Train a tokenizer, download GPT-2's, or show how one splits text.

command examples:
  gnano tokenizer train --files 'corpus/**/*.txt' --vocab-size 8192 --out tok
  gnano tokenizer gpt2 --out tok
  gnano tokenizer show tok "The quick brown fox"
"""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import PATH_REGISTRY, PathArg, model_folder
from gnano.utils.terminal import echo, echo_stderr


def train_command(
    files: tuple[str, ...], out: Path, vocab_size: int = 4_096, column: str = "text"
) -> None:
    """Train a byte-level BPE tokenizer on text files.

    Args:
        files: Paths, folders or globs: text, JSONL, CSV or Parquet; .gz and .zst.
        out: Folder for tokenizer.json.
        vocab_size: Vocabulary size, with the 256 bytes and end-of-text.
        column: Column of JSONL, CSV and Parquet files that holds the text.
    """
    from gnano.data.readers import check_column, read_documents
    from gnano.data.source_files import find_files
    from gnano.data.text_files import BadRecordCounter
    from gnano.tokenizer.train_bpe import train_bpe
    from gnano.utils.files import check_output_path

    check_output_path(out, "--out", files)
    found, bad = find_files(files), BadRecordCounter()
    check_column(found.paths, column)
    documents = bad.filter(d for path in found.paths for d in read_documents(path, column))
    tokenizer = train_bpe((document.text for document in documents), vocab_size)
    bad.check()
    tokenizer.save(out)
    for notice in filter(None, (found.format_skipped(), bad.format_summary())):
        echo_stderr(notice)
    echo(f"{vocab_size:,} entries: {out / 'tokenizer.json'}")


def gpt2_command(out: Path, files: Path | None = None) -> None:
    """Write GPT-2's tokenizer as files that transformers reads.

    Args:
        out: Folder for tokenizer.json.
        files: Folder with encoder.json and vocab.bpe; by default found locally or downloaded.
    """
    from gnano.tokenizer.gpt2 import load_gpt2_tokenizer
    from gnano.utils.files import check_output_path

    check_output_path(out, "--out", [files] if files else [])
    load_gpt2_tokenizer(files).save(out)
    echo(f"GPT-2's 50,257 entries: {out / 'tokenizer.json'}")


def show_command(tokenizer: PathArg, text: Annotated[str, tyro.conf.Positional]) -> None:
    """Show how a tokenizer splits a text: one token per line, after its id.

    Args:
        tokenizer: Its folder, or a data folder, a run or a checkpoint that has one.
        text: The text to split.
    """
    from gnano.checkpoint.run_checkpoints import find_checkpoint
    from gnano.tokenizer.hf_tokenizer import load_tokenizer

    tokenizer = model_folder(tokenizer)
    has_own = (tokenizer / "tokenizer.json").exists()
    loaded = load_tokenizer(tokenizer if has_own else find_checkpoint(tokenizer))
    for token in loaded.encode(text):
        echo(f"{token:>6}  {loaded.decode_bytes([token])!r}")


def main(argv: list[str]) -> None:
    """Run the subcommand that the arguments name."""
    with PATH_REGISTRY:
        tyro.extras.subcommand_cli_from_dict(
            {"train": train_command, "gpt2": gpt2_command, "show": show_command},
            prog="gnano tokenizer",
            description=__doc__,
            args=argv,
        )
