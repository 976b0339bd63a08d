"""The progress line of a training run.

    step 1,240/50,000 · loss 3.214 · 23:10:05 left · 94,210 tokens/s · 60.1% MFU · …

The most important parts come first: a narrow terminal shows as many as fit.
"""

import time
from typing import Any

from gnano.utils.formatting import format_clock, plural
from gnano.utils.terminal import StatusLine

SPEED_SMOOTHING = 0.05  # weight of the newest step in the speed shown: an average over about 20


class ProgressBar:
    """Shows the metrics of the current step and the time left."""

    def __init__(self, line: StatusLine | None = None) -> None:
        self.line = line or StatusLine()
        self.steps_seen = 0  # in this process; a resumed run starts at 0 again
        self.start_time = time.monotonic()
        self.seconds_per_token = 0.0  # smoothed; times, unlike speeds, can be averaged
        self.loss_text = "…"
        self.steps_skipped = 0
        self.heldout_text = self.tasks_text = ""

    def update(self, metrics: dict[str, Any]) -> None:
        """Show the metrics of a step, and `steps`, the number of all steps."""
        self._record(metrics)
        speed = 1 / self.seconds_per_token
        parts = [
            f"step {metrics['step']:,}/{metrics['steps']:,}",
            f"loss {self.loss_text}",
            f"{plural(self.steps_skipped, 'step')} skipped" if self.steps_skipped else "",
            self._time_left(metrics["steps"] - metrics["step"]),
            f"{speed:,.0f} tokens/s",
            _format_mfu(metrics, speed),
            self.heldout_text,
            self.tasks_text,
            f"norm {metrics['grad_norm']:.2f}" if metrics["grad_norm"] is not None else "",
            f"lr {metrics['lr']:.2e}",
            f"{metrics['memory_gb']:.1f} GB" if "memory_gb" in metrics else "",
        ]
        has_results = not {"heldout", "tasks"}.isdisjoint(metrics)
        self.line.update(" · ".join(filter(None, parts)), important=has_results)

    def show_message(self, text: str, waiting: bool = False) -> None:
        """Show a message above the line or, with `waiting`, what the run waits for in the line."""
        if waiting:
            self.line.update(text)
        else:
            self.line.print(text)

    def _record(self, metrics: dict[str, Any]) -> None:
        seconds_per_token = 1 / metrics["tokens_per_s"]
        self.steps_seen += 1
        if self.steps_seen == 1:
            self.start_time = time.monotonic()  # the first step also compiles and warms up
        if self.steps_seen <= 2:
            self.seconds_per_token = seconds_per_token
        self.seconds_per_token += SPEED_SMOOTHING * (seconds_per_token - self.seconds_per_token)
        self.steps_skipped += bool(metrics.get("skipped"))
        if metrics["loss"] is not None:
            self.loss_text = f"{metrics['loss']:.3f}"
        if "heldout" in metrics:
            self.heldout_text = f"held-out {_format_heldout(metrics['heldout'])}"
        if "tasks" in metrics:
            self.tasks_text = _format_tasks(metrics["tasks"])

    def _time_left(self, steps: int) -> str:
        """Return the time left at the average speed since the first step, evaluations included."""
        if self.steps_seen < 2:
            return ""
        seconds_per_step = (time.monotonic() - self.start_time) / (self.steps_seen - 1)
        return f"{format_clock(seconds_per_step * steps)} left"


def _format_heldout(result: dict[str, Any]) -> str:
    if "accuracy" in result:
        return f"{result['loss']:.3f}, {result['accuracy']:.0%} as preferred"
    if "loss" in result:
        return f"{result['loss']:.3f} nats/token"
    return f"{result['bits_per_byte']:.3f} bits/byte"


def _format_tasks(results: Any) -> str:
    """Return the main accuracy of each task; results of an unknown form are ignored."""
    tasks = results.items() if isinstance(results, dict) else ()
    main = {name: f.get("acc_norm", f.get("acc")) for name, f in tasks if isinstance(f, dict)}
    numbers = {name: value for name, value in main.items() if isinstance(value, int | float)}
    return " · ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def _format_mfu(metrics: dict[str, Any], tokens_per_s: float) -> str:
    """Return the MFU at the speed shown: "" on a CPU, unknown on an unknown GPU."""
    if "mfu" not in metrics:
        return ""
    if metrics["mfu"] is None:
        return "MFU unknown"
    return f"{metrics['mfu'] * tokens_per_s / metrics['tokens_per_s']:.1%} MFU"
