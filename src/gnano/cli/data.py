"""The command `gnano data`: inspects, verifies or scales out the preparation of data."""

from contextlib import closing
from typing import Annotated, Literal

import tyro

from gnano.cli.args import PathArg, run_function
from gnano.utils.terminal import echo

DATA_USAGE = """\
usage: gnano data show FOLDER SAMPLE     print a training sample, its source and its documents
       gnano data verify FOLDER          verify every file against its checksum
       gnano data scale-out RECIPE       prepare on many machines (local, Slurm, Ray)

`gnano data show --help` and so on for options and examples.
"""


def show_sample(
    folder: PathArg,
    sample: Annotated[int, tyro.conf.Positional],
    *,
    context: int = 1_024,
    weights: dict[str, float] | None = None,
    seed: int = 0,
    packing: Literal["stream", "best-fit"] = "stream",
) -> None:
    """Print a training sample with its source and the borders of its documents.

    command examples:
      gnano data show data/1b 0
      gnano data show data/1b 123456 --seed 1 --weights web 0.5 synthetic 0.2 code 0.3
      gnano data show data/demo 7 --context 256

    Args:
        folder: A folder made by `gnano prepare`.
        sample: Index of the sample, from 0; step s takes samples s × n … (s + 1) × n - 1.
        context: Tokens in a sequence, the recipe's model.block_size.
        weights: Weights of the sources; by default those they were prepared with.
        seed: The recipe's data.seed.
        packing: The recipe's data.packing.
    """
    from gnano.data.inspection import describe_sample
    from gnano.data.packed_dataset import PackedDataset
    from gnano.data.tokenized_corpus import TokenizedCorpus

    corpus = TokenizedCorpus(folder, verify_checksums=False)
    dataset = PackedDataset(corpus, weights or corpus.manifest.weights, seed, context, packing)
    echo(describe_sample(dataset, sample))


def verify_folder(folder: PathArg) -> int:
    """Verify every shard of a prepared folder against its checksum; exit code 1 for damage.

    command examples:
      gnano data verify data/1b

    Args:
        folder: A folder made by `gnano prepare`.
    """
    from gnano.data.inspection import verify_data
    from gnano.utils.progress import StatusLine

    with closing(StatusLine()) as line:
        problems = verify_data(
            folder, lambda n, of, size: line.update(f"{n:,} of {of:,} shards, {size / 1e9:.2f} GB")
        )
    echo("\n".join(problems) or f"{folder}: every file matches its checksum.")
    return 1 if problems else 0


def main(argv: list[str]) -> int:
    """Run the subcommand that the arguments name."""
    match argv:
        case ["show", *rest]:
            run_function(show_sample, "data show", rest)
            return 0
        case ["verify", *rest]:
            return run_function(verify_folder, "data verify", rest)
        case ["scale-out", *rest]:
            from gnano.cli.scale_out import main as scale_out

            return scale_out(rest)
        case [] | ["-h" | "--help"]:
            echo(DATA_USAGE, end="")
            return 0
    raise ValueError(
        f"There is no `gnano data {argv[0]}`; the subcommands are show, verify, scale-out."
    )
