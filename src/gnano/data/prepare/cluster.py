"""Prepares a data folder on many machines with datatrove: the same shards as `prepare`.

    plan ─▶ round 1: `TokenizeStep` on many ranks ─▶ `FinishStep`, in order ─▶ manifest
    here     local, Ray or Slurm                      here, or a Slurm job   │
                 ▲──────── round 2: the tasks that the budgets still need ◀──┘

The data folder is on a file system that all nodes share. Each round has a folder of logs and
statistics, such as `.logs/001`, which also stores errors, since executors and schedulers lose them.
"""

import hashlib
import importlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from gnano.config.data_config import DataConfig
from gnano.data.manifest import Manifest
from gnano.data.prepare.merge_shards import TaskScheduler
from gnano.data.prepare.pipeline import finish_folder, worker_config
from gnano.data.prepare.source_setup import open_data_folder
from gnano.data.source_files import SourceFiles
from gnano.utils.platform_support import available_cores, require
from gnano.utils.validation import Range, check_field_ranges, reject_unused

if TYPE_CHECKING:
    from gnano.data.prepare.cluster_steps import TokenizeStep

LOGS_FOLDER = ".logs"  # in the data folder


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """Options of `sbatch`."""

    partition: str = ""  # where the jobs run
    time: str = "24:00:00"  # limit of each job; the next round does what is left
    qos: str = ""  # quality of service; empty: the cluster's default
    # memory of the job that finishes: 24 bytes per document at most
    finish_memory_gb: Annotated[int, Range(1, 2**20)] = 16
    env_command: str = ""  # first command of a job; empty: put this Python first in PATH

    def __post_init__(self) -> None:
        check_field_ranges(self, "slurm")


@dataclass
class ClusterPreparation:
    """Prepares a data folder, as `prepare` does, with an executor of datatrove."""

    config: DataConfig
    executor: Literal["local", "slurm", "ray"] = "local"
    tasks: Annotated[int, Range(1, 2**20)] = 64  # ranks that share the work, each with one core
    # ranks that run at a time; 0: one per core, or as many as possible
    workers: Annotated[int, Range(0, 2**20)] = 0
    memory_gb: Annotated[int, Range(1, 2**20)] = 2  # of a rank (Slurm, Ray)
    logs: Path | None = None  # by default in the data folder
    slurm: SlurmConfig = SlurmConfig()
    log: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        check_field_ranges(self)
        if self.executor != "slurm":
            names = [field.name for field in fields(SlurmConfig)]
            reject_unused(self.slurm, "slurm", names, f"executor is {self.executor!r}")
        for package in ("datatrove", "ray") if self.executor == "ray" else ("datatrove",):
            require(package, "scale", f"Scaling out needs {package}")
        # absolute paths, since other processes have other working directories
        self.folder = Path(self.config.folder).absolute()
        self.logs_folder = (self.logs or self.folder / LOGS_FOLDER).absolute()
        paths = (Path(path).expanduser().absolute() for path in self.config.decontaminate)
        self.config = replace(
            self.config, folder=str(self.folder), decontaminate=tuple(map(str, paths))
        )
        # the name of the folder's Slurm jobs, by which the queue is searched
        self.job_name = f"gnano-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}"

    def run(self) -> Manifest | None:
        """Run rounds until the budgets are met; with Slurm submit one round and return None.

        Raises ValueError in the same cases as `prepare`.
        """
        if self.executor == "slurm":
            self._check_slurm()
        with open_data_folder(self.config) as (manifest, inputs):
            if manifest.complete:
                return manifest
            scheduler = TaskScheduler(self.folder, manifest)
            if self.executor == "slurm":
                # from the markers only: the keys of all documents are too large for a login node
                manifest.refresh(self.folder)
                self._submit_slurm_jobs(scheduler, inputs)
                return None
            scheduler.advance()
            while scheduler.unfinished:
                self._run_round(scheduler, inputs)
                scheduler.advance()
            finish_folder(self.folder, manifest, self.config.keep_downloads)
        return manifest

    def _start_round(
        self, scheduler: TaskScheduler, inputs: dict[str, SourceFiles]
    ) -> tuple["TokenizeStep", dict[str, Any]]:
        """Create the next round's folder; return its step and the options of its executor."""
        from gnano.data.prepare import cluster_steps as steps

        self.logs_folder.mkdir(parents=True, exist_ok=True)
        folder = self.logs_folder / f"{len(list(self.logs_folder.glob('[0-9]*'))) + 1:03}"
        folder.mkdir()
        pending = scheduler.pending_tasks()
        tasks = [task for task in pending if not steps.is_task_done(self.folder, *task)]
        ranks = max(1, min(self.tasks, len(tasks)))
        self.log(f"Round {folder.name}: {len(tasks):,} tasks on {ranks} ranks; {folder}")
        options: dict[str, Any] = {"tasks": ranks, "logging_dir": str(folder / "tokenize")}
        if self.executor != "local":
            options |= {"workers": self.workers or -1, "mem_per_cpu_gb": self.memory_gb}
        return steps.TokenizeStep(worker_config(self.config), folder, inputs, tasks), options

    def _run_round(self, scheduler: TaskScheduler, inputs: dict[str, SourceFiles]) -> None:
        from gnano.data.prepare import cluster_steps as steps

        step, options = self._start_round(scheduler, inputs)
        with steps.redirect_output(step.round_folder):
            if self.executor == "ray":
                from datatrove.executor.ray import RayPipelineExecutor

                ray: Any = importlib.import_module("ray")  # partly typed
                if not ray.is_initialized():
                    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                    ray.init(
                        # Ray's own default waits for minutes for a cluster that no longer exists
                        address=os.environ.get("RAY_ADDRESS", "local"),
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
                self.log(f"Ray has {ray.cluster_resources().get('CPU', 0):.0f} cores.")
                executor = RayPipelineExecutor([step], **options)
            else:
                workers = self.workers or available_cores()
                executor = steps.LocalExecutor([step], workers=workers, **options)
            executor.run()
            left = executor.get_incomplete_ranks(skip_completed=True)
        steps.raise_saved_failure([step.failures])
        if left:
            raise ValueError(
                f"{len(left)} of the ranks ended before their work was done, perhaps because "
                f"memory ran out: see {step.round_folder}. Run the same command again; finished "
                f"tasks are kept."
            )

    def _submit_slurm_jobs(self, scheduler: TaskScheduler, inputs: dict[str, SourceFiles]) -> None:
        """Submit an array of jobs that make drafts, and a job that merges them.

        datatrove adds to each a job that merges its statistics.
        """
        from datatrove.executor.slurm import SlurmPipelineExecutor

        from gnano.data.prepare import cluster_steps as steps

        try:
            steps.raise_saved_failure(self.logs_folder.glob("*/failures"))
        except ValueError as error:
            raise ValueError(
                f"{error}\nThe last jobs failed with this error. Correct it and run the same "
                f"command again, which submits the remaining tasks."
            ) from None
        step, options = self._start_round(scheduler, inputs)
        bin_folder = shlex.quote(str(Path(sys.executable).parent))
        slurm = partial(
            SlurmPipelineExecutor,
            time=self.slurm.time,
            partition=self.slurm.partition,
            qos=self.slurm.qos,
            job_name=self.job_name,
            env_command=self.slurm.env_command or f"export PATH={bin_folder}:$PATH",
            # otherwise datatrove's statistics job stays in the queue after a failed rank
            sbatch_args={"kill-on-invalid-dep": "yes"},
        )
        try:
            with steps.redirect_output(step.round_folder):
                slurm(
                    [steps.FinishStep(self.config, step.round_folder)],
                    tasks=1,
                    logging_dir=str(step.round_folder / "finish"),
                    mem_per_cpu_gb=self.slurm.finish_memory_gb,
                    depends=slurm([step], **options) if step.tasks else None,
                    # also after ranks that failed, to merge the drafts of the others
                    run_on_dependency_fail=True,
                ).launch_job()
        except subprocess.CalledProcessError as error:
            raise ValueError(
                f"sbatch refused a job ({error}): its message is above, the script is in "
                f"{step.round_folder}."
            ) from None
        self.log(
            f"Submitted: see `squeue --name={self.job_name}` and the logs in "
            f"{step.round_folder}. When the jobs have ended, run the same command again: it "
            f"reports that {self.folder} is complete, or submits the remaining tasks."
        )

    def _check_slurm(self) -> None:
        """Raise ValueError for problems that would otherwise appear after the jobs' submission."""
        if not self.slurm.partition:
            raise ValueError("Slurm needs the partition of the jobs (--slurm.partition; `sinfo`).")
        if not shutil.which("sbatch"):
            raise ValueError("There is no sbatch here: run this where Slurm jobs are submitted.")
        if len(str(self.logs_folder).split()) > 1:
            raise ValueError(
                f"{self.logs_folder} has a space, which Slurm scripts cannot contain (--logs)."
            )
        if shutil.which("squeue"):
            command = ["squeue", "--noheader", "--format=%i", f"--name={self.job_name}"]
            jobs = subprocess.run(command, capture_output=True, encoding="utf-8").stdout.split()
            if jobs:
                raise ValueError(
                    f"Jobs for {self.folder} are still in the queue ({', '.join(jobs[:3])} …). "
                    f"Wait for them, or cancel them with `scancel --name={self.job_name}`."
                )
