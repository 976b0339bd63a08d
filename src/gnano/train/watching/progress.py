"""The line a person watches while a model trains.

    step 1,240/50,000 · loss 3.214 · 23:10:05 left · 94,210 tokens/s · 60.1% MFU · …

What matters most comes first: a narrow terminal shows as many parts as fit.
"""

import time
from typing import Any

from gnano.live import LiveLine, clock

SMOOTHING = 0.05  # weight of the newest step in the speed shown: about the last 20 count


class Progress:
    """Called with the figures of every step; shows them with the time left."""

    def __init__(self, line: LiveLine | None = None) -> None:
        self.line = line or LiveLine()
        self.seen = 0  # steps, in this part of the run
        self.started = time.monotonic()
        self.pace = 0.0  # seconds a token, smoothed: times add up where speeds do not
        self.loss = "…"
        self.skipped = 0
        self.heldout = self.tasks = ""

    def __call__(self, figures: dict[str, Any]) -> None:
        self._take(figures)
        speed = 1 / self.pace
        parts = [
            f"step {figures['step']:,}/{figures['steps']:,}",
            f"loss {self.loss}",
            f"{self.skipped:,} step{'s' * (self.skipped > 1)} skipped" if self.skipped else "",
            self._left(figures["steps"] - figures["step"]),
            f"{speed:,.0f} tokens/s",
            _mfu(figures, speed),
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
        """What is not a step: a fact that stays, or what the run waits for."""
        if waiting:
            self.line.show(text)
        else:
            self.line.note(text)

    def _take(self, figures: dict[str, Any]) -> None:
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
            self.heldout = f"held-out {_heldout(figures['heldout'])}"
        if "tasks" in figures:
            self.tasks = _tasks(figures["tasks"])

    def _left(self, steps: int) -> str:
        """At the pace since the first step, held-out losses and checkpoints among it."""
        if self.seen < 2:
            return ""
        each = (time.monotonic() - self.started) / (self.seen - 1)
        return f"{clock(each * steps)} left"


def _heldout(found: dict[str, Any]) -> str:
    if "accuracy" in found:
        return f"{found['loss']:.3f}, {found['accuracy']:.0%} as preferred"
    if "loss" in found:
        return f"{found['loss']:.3f} nats/token"
    return f"{found['bits_per_byte']:.3f} bits/byte"


def _tasks(found: Any) -> str:
    """Each is a part of the line, so that a narrow terminal has at least the first of them.

    Whoever asks them may tell other figures than ours, and no run is to end by its line.
    """
    told = found.items() if isinstance(found, dict) else ()
    main = {name: f.get("acc_norm", f.get("acc")) for name, f in told if isinstance(f, dict)}
    numbers = {name: value for name, value in main.items() if isinstance(value, int | float)}
    return " · ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def _mfu(figures: dict[str, Any], speed: float) -> str:
    """On a GPU: its share of the peak, at the speed shown; a GPU without a known peak has none."""
    if "mfu" not in figures:
        return ""
    if figures["mfu"] is None:
        return "MFU unknown"
    return f"{figures['mfu'] * speed / figures['tokens_per_s']:.1%} MFU"
