"""The command `gnano data scale-out`: turns documents into token shards on many machines."""

from pathlib import Path
from typing import Literal

from gnano.cli.args import parse_recipe
from gnano.utils.terminal import echo, echo_stderr

DESCRIPTION = """\
Do the work of `gnano prepare` on many processes or machines, with datatrove's executors.

The shards and the manifest are those of `gnano prepare`, byte for byte, and the same command
resumes after an interruption. The data folder, the sources' files and the Python environment must
be on a file system that all machines share. Ray is that of RAY_ADDRESS (auto: the one that `ray
start` started on this machine), else a new one on this machine only. Slurm's jobs are submitted;
when they have ended, run the same command again: it reports that all is done, or submits what
the budgets still need. Needs pip install 'auto-g-nano[scale]'.

command examples:
  gnano data scale-out 1b --executor local --tasks 16 --workers 8
  RAY_ADDRESS=auto gnano data scale-out 1b --executor ray --tasks 256 --workers 128
  gnano data scale-out 1b --executor slurm --tasks 256 --workers 64 --slurm.partition cpu
"""


def main(argv: list[str]) -> int:
    """Run or submit the preparation, and describe the folder once it is complete."""
    from gnano.data.prepare.cluster import ClusterPreparation, SlurmConfig

    recipe, options = parse_recipe(
        "data scale-out",
        DESCRIPTION,
        argv,
        executor=(Literal["local", "slurm", "ray"], "local", "how the ranks are run"),
        tasks=(int, 64, "ranks that share the work; each is a job in a Slurm array"),
        workers=(int, 0, "ranks at a time; 0: one per core (local), all that fit (slurm, ray)"),
        memory_gb=(int, 2, "memory of a rank, which has one core (slurm, ray)"),
        logs=(Path | None, None, "datatrove's logs and statistics; by default .logs in the folder"),
        slurm=(SlurmConfig, SlurmConfig(), "Slurm's options"),
    )
    from gnano.reporting.description import describe_data

    manifest = ClusterPreparation(
        recipe.pretraining_data,
        options.executor,
        options.tasks,
        options.workers,
        options.memory_gb,
        options.logs,
        options.slurm,
        echo_stderr,
    ).run()
    if manifest:
        echo(describe_data(Path(recipe.pretraining_data.folder)))
    return 0
