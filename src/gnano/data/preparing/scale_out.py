"""Preparation on more than one machine: the same tasks, drafts and shards, by `datatrove`.

    plan ─▶ round 1: ranks make the drafts ─▶ finishing, in sequence ─▶ enough? ─▶ manifest
    here     Local, Ray or Slurm              here, or a job of its own    │
                 ▲─────────────── round 2: what the budgets still want ◀───┘

How many tasks a budget takes is known only when they are finished; hence rounds, of which
the first is nearly always enough. The data folder is on a file system that all nodes see.
Each round has a folder of logs, where datatrove keeps what it knows: `LOGS/001/…`.
"""

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gnano.data.inputs import Inputs
from gnano.data.manifest import Manifest
from gnano.data.preparing.lock import locked
from gnano.data.preparing.opening import check_folder, open_folder
from gnano.data.preparing.preparation import conclude, settings
from gnano.data.preparing.scheduling import Scheduler
from gnano.data.preparing.slurm import Slurm, check_slurm, job_name, submit
from gnano.data.sources import DataConfig
from gnano.utils.host import available_cores
from gnano.utils.ranges import Range, check_number
from gnano.utils.unused import refuse_unused

if TYPE_CHECKING:
    from gnano.data.preparing.pipeline import Tokenize

LOGS = ".logs"  # in the data folder
LOG = "datatrove.log"  # in a round's folder: what would be said on the terminal
Say = Callable[[str], None]


def scale_out(
    config: DataConfig,
    executor: Literal["local", "slurm", "ray"] = "local",
    tasks: int = 64,
    workers: int = 0,
    memory_gb: int = 2,
    logs: Path | None = None,
    slurm: Slurm | None = None,
    say: Say = lambda _: None,
) -> Manifest | None:
    """What `prepare` does, on the processes of an executor of datatrove.

    `tasks` ranks, of which `workers` run at a time (0: one per core here, all that fit
    elsewhere), each with one core and `memory_gb` (Slurm, Ray). Slurm's jobs are only
    submitted: returns None, or the manifest if nothing was left to do.

    Raises ValueError, in a sentence, where `prepare` does.
    """
    slurm = slurm or Slurm()
    for name, number, least in (("tasks", tasks, 1), ("workers", workers, 0)):
        check_number(name, number, Range(least, 2**20))
    check_number("memory_gb", memory_gb, Range(1, 2**20))
    if executor != "slurm":
        names = [field.name for field in fields(Slurm)]
        refuse_unused(slurm, "slurm.", names, f"executor is {executor!r}")
    try:
        import datatrove  # noqa: F401

        if executor == "ray":
            import ray  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"Scaling out needs {error.name}: pip install 'auto-g-nano[scale]'."
        ) from None
    check_folder(config)
    # nodes and processes stand in folders of their own
    folder = Path(config.folder).absolute()
    config = replace(
        config,
        folder=str(folder),
        decontaminate=tuple(str(Path(p).expanduser().absolute()) for p in config.decontaminate),
    )
    scale = _Scale(config, tasks, workers, memory_gb, (logs or folder / LOGS).absolute(), say)
    if executor == "slurm":
        check_slurm(slurm, folder, scale.logs)
    with locked(folder):
        manifest, inputs = open_folder(config)
        if manifest.complete:
            return manifest
        scheduler = Scheduler(folder, manifest)
        if executor == "slurm":
            # by the markers alone: all documents' keys are too much for a login node
            manifest.refresh(folder)
            scale.submit(scheduler, inputs, slurm)
            return None
        scale.run(scheduler, inputs, executor)
    return manifest


@dataclass(frozen=True)
class _Scale:
    """One call of `scale_out`: its rounds."""

    config: DataConfig
    tasks: int
    workers: int
    memory_gb: int
    logs: Path
    say: Say

    @property
    def folder(self) -> Path:
        return Path(self.config.folder)

    def run(self, scheduler: Scheduler, inputs: dict[str, Inputs], executor: str) -> None:
        """Local and Ray: rounds until the budgets are met."""
        from gnano.data.preparing.pipeline import quiet, raise_noted

        while True:
            for _ in scheduler.advance():
                pass
            if scheduler.complete:
                break
            home = self._round()
            step = self._tokenize(scheduler, inputs, home)
            run = self._local if executor == "local" else self._ray
            with quiet(home / LOG):
                left = run(step, home)
            raise_noted([step.notes])
            if left:
                raise ValueError(
                    f"{len(left)} of the ranks did not come to an end, perhaps for lack of "
                    f"memory: see {home}, and run the same command again; what is done is kept."
                )
        conclude(self.folder, scheduler.manifest, self.config.keep_downloads)

    def submit(self, scheduler: Scheduler, inputs: dict[str, Inputs], slurm: Slurm) -> None:
        """Slurm: one round's jobs, the finishing after the drafts."""
        from gnano.data.preparing.pipeline import Finish, quiet, raise_noted

        try:
            raise_noted(list(self.logs.glob("*/failures")))
        except ValueError as error:
            raise ValueError(
                f"{error}\nSo ended the last jobs. When that is mended, the same command "
                f"submits what is left."
            ) from None
        home = self._round()
        step = self._tokenize(scheduler, inputs, home)
        finish = Finish(self.folder, step.notes, self.config.keep_downloads)
        with quiet(home / LOG):
            submit(slurm, step, finish, home, self._ranks(step), self.workers, self.memory_gb)
        self.say(
            f"Submitted: see `squeue --name={job_name(self.folder)}`, and the logs in {home}. "
            f"When the jobs have ended, the same command says that {self.folder} is complete, "
            f"or submits the rest."
        )

    def _round(self) -> Path:
        self.logs.mkdir(parents=True, exist_ok=True)
        home = self.logs / f"{len(list(self.logs.glob('[0-9]*'))) + 1:03}"
        home.mkdir()
        return home

    def _tokenize(self, scheduler: Scheduler, inputs: dict[str, Inputs], home: Path) -> "Tokenize":
        from gnano.data.preparing.pipeline import Tokenize, is_made

        wanted = [task for task in scheduler.wanted() if not is_made(self.folder, *task)]
        keep = self.config.keep_downloads
        step = Tokenize(settings(self.config), inputs, wanted, home / "failures", keep)
        self.say(f"Round {home.name}: {len(wanted):,} tasks on {self._ranks(step)} ranks; {home}")
        return step

    def _ranks(self, step: "Tokenize") -> int:
        return max(1, min(self.tasks, len(step.tasks)))

    def _local(self, step: "Tokenize", home: Path) -> list[int]:
        from gnano.data.preparing.pipeline import LocalExecutor

        run = LocalExecutor(
            [step],
            home / LOG,
            tasks=self._ranks(step),
            workers=self.workers or available_cores(),
            logging_dir=str(home / "tokenize"),
        )
        run.run()
        return list(run.get_incomplete_ranks(skip_completed=True))

    def _ray(self, step: "Tokenize", home: Path) -> list[int]:
        from datatrove.executor.ray import RayPipelineExecutor

        ray: Any = importlib.import_module("ray")  # only in part typed
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                # not Ray's own default, which waits minutes for a cluster that is no more
                address=os.environ.get("RAY_ADDRESS", "local"),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        self.say(f"Ray has {ray.cluster_resources().get('CPU', 0):.0f} cores.")
        run = RayPipelineExecutor(
            [step],
            tasks=self._ranks(step),
            workers=self.workers or -1,
            mem_per_cpu_gb=self.memory_gb,
            logging_dir=str(home / "tokenize"),
        )
        run.run()
        return list(run.get_incomplete_ranks(skip_completed=True))
