"""Profiles a window of a few steps with torch's profiler, on request.

    step:    98   99  100  101  102  103     train.profile_start = 100, profile_steps = 3
                 warm ├── recorded ──┤ written

Each rank writes `profile/step-00000100-rank0.json.gz`, which https://ui.perfetto.dev and
chrome://tracing open directly, and next to it a table of the most expensive operations. Without a
window, a step costs one comparison.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from gnano.config.train_config import TrainConfig

TABLE_ROWS = 25  # operations in the table


class StepProfiler:
    """Profiles the steps of a window; its errors never stop the run."""

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        rank: int = 0,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Record `profile_steps` steps from `profile_start` on (counted from 1)."""
        self.run, self.rank, self.notify = run, rank, notify
        self.first_step, self.end = (
            config.profile_start,
            config.profile_start + config.profile_steps,
        )
        self.profiler: profile | None = None
        self.recorded_from = 0  # first step recorded: a run may resume inside the window

    def step(self, step: int) -> None:
        """Advance the profiler; called with the number of each step before it starts."""
        if not self.first_step or not (self.profiler or self.first_step - 1 <= step < self.end):
            return
        try:
            if self.profiler is None:
                # GPU tracing takes seconds to start: in the step before the recorded ones
                warmup = max(0, self.first_step - step)
                self.recorded_from = step + warmup
                activities = [ProfilerActivity.CPU]
                if torch.cuda.is_available():
                    activities.append(ProfilerActivity.CUDA)
                active = self.end - self.first_step
                with warnings.catch_warnings(action="ignore"):  # it warns without a warm-up step
                    plan = schedule(wait=0, warmup=warmup, active=active, repeat=1)
                self.profiler = profile(
                    activities=activities, schedule=plan, on_trace_ready=self._export_trace
                )
                self.profiler.start()
            elif step < self.end:
                self.profiler.step()
            else:
                profiler, self.profiler, self.first_step = self.profiler, None, 0
                profiler.stop()  # which writes the trace
        except Exception as error:  # a trace is not worth a run
            self.first_step, self.profiler = 0, None
            reason = str(error).split("\n")[0]
            self.notify(f"No profile, training continues: {type(error).__name__}: {reason}")

    def close(self) -> None:
        """Write what was recorded if the run ends inside the window."""
        if self.profiler is not None:
            self.step(self.end)

    def _export_trace(self, profiler: profile) -> None:
        name = f"step-{self.recorded_from:08}-rank{self.rank}"
        folder = self.run / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        trace = folder / f"{name}.json.gz"
        profiler.export_chrome_trace(str(trace))
        cuda = ProfilerActivity.CUDA in profiler.activities
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=key, row_limit=TABLE_ROWS)
        (folder / f"{name}.txt").write_text(table + "\n", "utf-8")
        self.notify(f"Profile: {trace}")
