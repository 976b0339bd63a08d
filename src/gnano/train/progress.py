"""The line a person watches while a model trains."""

import time
from typing import Any

from gnano.live import LiveLine, clock


class Progress:
    """Called with the figures of every step; shows them with the time left."""

    def __init__(self, steps: int, line: LiveLine | None = None) -> None:
        self.steps, self.line = steps, line or LiveLine()
        self.first = 0
        self.started = time.monotonic()
        self.speed = 0.0
        self.heldout = ""

    def __call__(self, figures: dict[str, Any]) -> None:
        step, now = figures["step"], time.monotonic()
        if not self.first:
            self.first, self.started, self.speed = step, now, figures["tokens_per_s"]
        self.speed += 0.05 * (figures["tokens_per_s"] - self.speed)
        if "heldout" in figures:
            self.heldout = f" · held-out {figures['heldout']['bits_per_byte']:.3f} bits/byte"
        left = ""
        if step > self.first:
            pace = (now - self.started) / (step - self.first)
            left = f" · {clock(pace * (self.steps - step))} left"
        self.line.show(
            f"step {step:,}/{self.steps:,} · loss {figures['loss']:.3f}{self.heldout}"
            f" · {self.speed:,.0f} tokens/s{left}",
            important="heldout" in figures,
        )

    def say(self, text: str, waiting: bool = False) -> None:
        """What is not a step: a fact that stays, or what the run waits for."""
        if waiting:
            self.line.show(text)
        else:
            self.line.note(text)
