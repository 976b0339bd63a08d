"""Profiles a window of a few steps with torch's profiler, on request.

    step:    98   99  100  101  102  103        profile_at = 100, profile_steps = 3
                 warm ├── recorded ──┤ written

Each rank writes `profile/step-00000100-rank0.json.gz`, which https://ui.perfetto.dev and
chrome://tracing open as it is, and beside it the costliest operations as a table. With no
window asked for, a step costs one comparison.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch.profiler import ProfilerActivity, profile, schedule

ROWS = 25  # operations in the table


class ProfileWindow:
    """Called with the number of each step before it starts; its errors never stop the run."""

    def __init__(
        self,
        run: Path,
        first: int,
        steps: int,
        rank: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Record `steps` steps from step `first` on (counted from 1; 0: none)."""
        self.run, self.first, self.steps, self.rank, self.say = run, first, steps, rank, say
        self.profiler: profile | None = None
        self.began = 0  # first step recorded: a run may resume in the middle of the window

    def step(self, step: int) -> None:
        if self.first and (self.profiler or self.first - 1 <= step < self.first + self.steps):
            self._attempt(step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what there is, if the run ends inside the window."""
        if self.profiler is not None:
            self._attempt(self.first + self.steps)

    def _attempt(self, step: int) -> None:
        try:
            self._move_to(step)
        except Exception as error:  # a trace is not worth a run
            self.first, self.profiler = 0, None
            reason = str(error).split("\n")[0]
            self.say(f"No profile, the run goes on: {type(error).__name__}: {reason}")

    def _move_to(self, step: int) -> None:
        if self.profiler is None:
            self._start(step)
        elif step < self.first + self.steps:
            self.profiler.step()
        else:
            profiler, self.profiler, self.first = self.profiler, None, 0
            profiler.stop()  # which writes it

    def _start(self, step: int) -> None:
        # the GPU's tracing takes seconds to get going: in the step before those recorded
        warmup = max(0, self.first - step)
        self.began = step + warmup
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        with warnings.catch_warnings(action="ignore"):  # it warns where there is no step to warm in
            plan = schedule(wait=0, warmup=warmup, active=self.steps, repeat=1)
        self.profiler = profile(activities=activities, schedule=plan, on_trace_ready=self._write)
        self.profiler.start()

    def _write(self, profiler: profile) -> None:
        name = f"step-{self.began:08}-rank{self.rank}"
        folder = self.run / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        trace = folder / f"{name}.json.gz"
        profiler.export_chrome_trace(str(trace))
        cuda = ProfilerActivity.CUDA in profiler.activities
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=key, row_limit=ROWS)
        (folder / f"{name}.txt").write_text(table + "\n", "utf-8")
        self.say(f"Profile: {trace}")
