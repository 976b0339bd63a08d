"""One round of a preparation as Slurm jobs: an array that drafts, then one job that finishes.

sbatch  tokenize[0-255%64]  ◀─after─  finish        (datatrove adds a job to each that
                                                      merges its statistics)
"""

import hashlib
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gnano.utils.ranges import Range, check_ranges

if TYPE_CHECKING:
    from gnano.data.preparing.pipeline import Finish, Tokenize


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What `sbatch` is told, beside the number of jobs."""

    partition: str = ""  # where the jobs run
    time: str = "24:00:00"  # limit of each job; what one leaves, the next round does
    qos: str = ""  # quality of service; empty: the cluster's own
    # memory of the job that finishes: 24 bytes a document at most
    finishing_gb: Annotated[int, Range(1, 2**20)] = 16
    env_command: str = ""  # what a node runs first; empty: puts this Python first in PATH

    def __post_init__(self) -> None:
        check_ranges(self, "slurm")


def job_name(folder: Path) -> str:
    """What the jobs of a folder are called: so that the queue can be asked for them."""
    return f"gnano-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def check_slurm(slurm: Slurm, folder: Path, logs: Path) -> None:
    """Raises ValueError for what would only be noticed when jobs have been submitted."""
    if not slurm.partition:
        raise ValueError("Name the partition that runs the jobs (--slurm.partition; `sinfo`).")
    if not shutil.which("sbatch"):
        raise ValueError("There is no sbatch here: run this where Slurm jobs are submitted.")
    if len(str(logs).split()) > 1:
        raise ValueError(f"{logs} has a space, which job scripts cannot take (--logs).")
    if shutil.which("squeue"):
        ask = ["squeue", "--noheader", "--format=%i", f"--name={job_name(folder)}"]
        jobs = subprocess.run(ask, capture_output=True, encoding="utf-8").stdout.split()
        if jobs:
            raise ValueError(
                f"Jobs for {folder} are still in the queue ({', '.join(jobs[:3])} …): "
                f"wait for them, or end them with `scancel --name={job_name(folder)}`."
            )


def submit(
    slurm: Slurm,
    tokenize: "Tokenize",
    finish: "Finish",
    home: Path,
    ranks: int,
    workers: int,
    memory_gb: int,
) -> None:
    """Submit a round; its scripts and logs lie in `home`."""
    first: dict[str, Any] = {}
    try:
        if tokenize.tasks:
            drafting = _jobs(
                slurm,
                tokenize,
                finish.folder,
                home / "tokenize",
                tasks=ranks,
                workers=workers or -1,
                mem_per_cpu_gb=memory_gb,
            )
            # also after ranks that failed: what they did is finished
            first = {"depends": drafting, "run_on_dependency_fail": True}
        _jobs(
            slurm,
            finish,
            finish.folder,
            home / "finish",
            tasks=1,
            mem_per_cpu_gb=slurm.finishing_gb,
            **first,
        ).launch_job()
    except subprocess.CalledProcessError as error:
        raise ValueError(
            f"sbatch refused a job ({error}): its words are above, the script is in {home}."
        ) from None


def _jobs(slurm: Slurm, step: Any, folder: Path, home: Path, **options: Any) -> Any:
    from datatrove.executor.slurm import SlurmPipelineExecutor

    here = shlex.quote(str(Path(sys.executable).parent))
    return SlurmPipelineExecutor(
        [step],
        time=slurm.time,
        partition=slurm.partition,
        qos=slurm.qos,
        job_name=job_name(folder),
        logging_dir=str(home),
        env_command=slurm.env_command or f"export PATH={here}:$PATH",
        # else datatrove's merging of statistics stays in the queue after a failed rank
        sbatch_args={"kill-on-invalid-dep": "yes"},
        **options,
    )
