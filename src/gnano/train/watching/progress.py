"""The progress line of a training run.

    step 1,240/50,000 · loss 3.214 · 23:10:05 left · 94,210 tokens/s · 60.1% MFU · …

The most important parts come first: a narrow terminal shows as many as fit.
"""

import time
from typing import Any

from gnano.live import LiveLine, clock
from gnano.utils.formatting import plural

SMOOTHING = 0.05  # weight of the newest step in the speed shown: about the last 20 count


class Progress:
    """Called with the metrics of every step; shows them with the time left."""

    def __init__(self, line: LiveLine | None = None) -> None:
        self.line = line or LiveLine()
        self.seen = 0  # steps, in this part of the run
        self.started = time.monotonic()
        self.pace = 0.0  # seconds a token, smoothed: times add up where speeds do not
        self.loss = "…"
        self.skipped = 0
        self.heldout = self.tasks = ""

    def __call__(self, figures: dict[str, Any]) -> None:
        self._update(figures)
        speed = 1 / self.pace
        parts = [
            f"step {figures['step']:,}/{figures['steps']:,}",
            f"loss {self.loss}",
            f"{plural(self.skipped, 'step')} skipped" if self.skipped else "",
            self._time_left(figures["steps"] - figures["step"]),
            f"{speed:,.0f} tokens/s",
            _format_mfu(figures, speed),
            self.heldout,
            self.tasks,
            f"norm {figures['grad_norm']:.2f}" if figures["grad_norm"] is not None else "",
            f"lr {figures['lr']:.2e}",
            f"{figures['memory_gb']:.1f} GB" if "memory_gb" in figures else "",
        ]
        self.line.show(
            " · ".join(filter(None, parts)), important=not {"heldout", "tasks"}.isdisjoint(figures)
        )

    def say(self, text: str, waiting: bool = False) -> None:
        """Show a message that stays, or what the run is waiting for."""
        if waiting:
            self.line.show(text)
        else:
            self.line.note(text)

    def _update(self, figures: dict[str, Any]) -> None:
        now, pace = time.monotonic(), 1 / figures["tokens_per_s"]
        self.seen += 1
        if self.seen == 1:
            self.started = now  # the first step also compiles and warms up
        if self.seen <= 2:
            self.pace = pace
        self.pace += SMOOTHING * (pace - self.pace)
        self.skipped += bool(figures.get("skipped"))
        if figures["loss"] is not None:
            self.loss = f"{figures['loss']:.3f}"
        if "heldout" in figures:
            self.heldout = f"held-out {_format_heldout(figures['heldout'])}"
        if "tasks" in figures:
            self.tasks = _format_tasks(figures["tasks"])

    def _time_left(self, steps: int) -> str:
        """Return the time left at the pace since the first step, evaluations included."""
        if self.seen < 2:
            return ""
        each = (time.monotonic() - self.started) / (self.seen - 1)
        return f"{clock(each * steps)} left"


def _format_heldout(found: dict[str, Any]) -> str:
    if "accuracy" in found:
        return f"{found['loss']:.3f}, {found['accuracy']:.0%} as preferred"
    if "loss" in found:
        return f"{found['loss']:.3f} nats/token"
    return f"{found['bits_per_byte']:.3f} bits/byte"


def _format_tasks(found: Any) -> str:
    """Return one part per task; results in a form that is unknown are ignored."""
    tasks = found.items() if isinstance(found, dict) else ()
    main = {name: f.get("acc_norm", f.get("acc")) for name, f in tasks if isinstance(f, dict)}
    numbers = {name: value for name, value in main.items() if isinstance(value, int | float)}
    return " · ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def _format_mfu(figures: dict[str, Any], speed: float) -> str:
    """Return the MFU at the speed shown; none on a CPU, unknown on an unknown GPU."""
    if "mfu" not in figures:
        return ""
    if figures["mfu"] is None:
        return "MFU unknown"
    return f"{figures['mfu'] * speed / figures['tokens_per_s']:.1%} MFU"
