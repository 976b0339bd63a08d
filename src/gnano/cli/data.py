"""Inspect prepared data, verify it, or prepare it on many machines.

usage: gnano data show FOLDER SAMPLE     print a training sample, its source and its documents
       gnano data verify FOLDER          verify every file against its checksum
       gnano data scale-out RECIPE       prepare on many machines (local, Slurm, Ray)

`gnano data show --help` and so on for options and examples.
"""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gnano.cli.args import PATH_REGISTRY, PathArg, parse_recipe
from gnano.utils.terminal import StatusLine, echo, echo_stderr


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
    from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus

    corpus = TokenizedCorpus(folder, verify_checksums=False)
    dataset = PackedDataset(corpus, weights or corpus.manifest.weights, seed, context, packing)
    echo(describe_sample(dataset, sample))


def verify_folder(folder: PathArg) -> int:
    """Verify every shard of a prepared folder against its checksum; exit code 1 for damage.

    Args:
        folder: A folder made by `gnano prepare`.
    """
    from gnano.data.inspection import verify_data

    with closing(StatusLine()) as line:
        problems = verify_data(
            folder, lambda n, of, size: line.update(f"{n:,} of {of:,} shards, {size / 1e9:.2f} GB")
        )
    echo("\n".join(problems) or f"{folder}: every file matches its checksum.")
    return 1 if problems else 0


def scale_out(argv: list[str]) -> None:
    """Do the work of `gnano prepare` on many processes or machines, with datatrove's executors.

    The shards and the manifest are those of `gnano prepare`, byte for byte, and the same command
    resumes after an interruption. The data folder, the sources' files and the Python environment
    must be on a file system that all machines share. Ray is that of RAY_ADDRESS (auto: the one
    that `ray start` started on this machine), else a new one on this machine only. Slurm's jobs are
    submitted; when they have ended, run the same command again: it reports that all is done, or
    submits what the budgets still need. Needs pip install 'auto-g-nano[scale]'.

    command examples:
      gnano data scale-out 1b --executor local --tasks 16 --workers 8
      RAY_ADDRESS=auto gnano data scale-out 1b --executor ray --tasks 256 --workers 128
      gnano data scale-out 1b --executor slurm --tasks 256 --workers 64 --slurm.partition cpu
    """
    from gnano.data.prepare.cluster import ClusterPreparation, SlurmConfig

    recipe, options = parse_recipe(
        "data scale-out",
        scale_out.__doc__,
        argv,
        executor=(Literal["local", "slurm", "ray"], "local", "how the ranks are run"),
        tasks=(int, 64, "ranks that share the work; each is a job in a Slurm array"),
        workers=(int, 0, "ranks at a time; 0: one per core (local), all that fit (slurm, ray)"),
        memory_gb=(int, 2, "memory of a rank, which has one core (slurm, ray)"),
        logs=(Path | None, None, "datatrove's logs and statistics; by default .logs in the folder"),
        slurm=(SlurmConfig, SlurmConfig(), "Slurm's options"),
    )
    from gnano.reporting.description import describe_data

    data = recipe.pretraining_data
    preparation = ClusterPreparation(data, **vars(options), log=echo_stderr)
    if preparation.run():
        echo(describe_data(Path(data.folder)))


def main(argv: list[str]) -> int | None:
    """Run the subcommand that the arguments name."""
    match argv:
        case ["show", *rest]:
            tyro.cli(show_sample, prog="gnano data show", args=rest, registry=PATH_REGISTRY)
        case ["verify", *rest]:
            return tyro.cli(
                verify_folder, prog="gnano data verify", args=rest, registry=PATH_REGISTRY
            )
        case ["scale-out", *rest]:
            scale_out(rest)
        case [] | ["-h" | "--help"]:
            echo(__doc__ or "", end="")
        case [name, *_]:
            raise ValueError(
                f"There is no `gnano data {name}`; the subcommands are show, verify, scale-out."
            )
    return None
