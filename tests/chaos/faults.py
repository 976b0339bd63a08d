"""Faults that are injected in a separate process, at a given moment inside the program.

    Fault("inside a save", 2)   kills the process when it reaches that moment for the second time

A moment is before, after, or (`half`) in the middle of a call of one of our functions.
"""

import importlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# name: module, attribute, and whether the fault is before, after or in the middle of the call
MOMENTS = {
    "in a step": ("gnano.train.train_step", "TrainState.train_step", "before"),
    "before the optimizer": ("gnano.train.optim.optimizer", "Optimizer.step", "before"),
    "after the optimizer": ("gnano.train.optim.optimizer", "Optimizer.step", "after"),
    "while a batch is loaded": (
        "gnano.train.train_step",
        "PrefetchLoader.next_micro_batches",
        "before",
    ),
    "during evaluation": ("gnano.model.transformer", "GPT.eval", "after"),
    "after evaluation": ("gnano.train.evaluator", "Evaluator.evaluate", "after"),
    "when a save starts": ("gnano.checkpoint.async_writer", "AsyncCheckpointWriter.start", "after"),
    "inside a save": ("gnano.checkpoint.format", "save_model", "after"),
    "inside a save, later": ("gnano.checkpoint.format", "_write_training", "after"),
    "before a save is complete": ("gnano.checkpoint.format", "write_checksums", "before"),
    "before the rename": ("gnano.checkpoint.format", "write_checksums", "after"),
    "after the rename": ("gnano.checkpoint.async_writer", "verify_checksums", "before"),
    "before an old checkpoint is removed": (
        "gnano.checkpoint.async_writer",
        "apply_retention",
        "before",
    ),
    "while an old checkpoint is removed": (
        "gnano.checkpoint.run_checkpoints",
        "remove_checkpoint",
        "half",
    ),
    "in a line of the log": ("gnano.utils.jsonl_log", "JsonLinesWriter.write", "half"),
}
# a moment that a run reaches only once
COMPILING = "while compiling"
ONCE = {COMPILING: ("torch._inductor.graph", "GraphLowering.codegen", "before")}


@dataclass(frozen=True)
class Fault:
    moment: str
    call: int = 1  # which call in this process, or which step (for nan), from 1
    # kill, term, int, usr1: this signal; nan, nan twice: the gradient of one or two steps is NaN;
    # clock set back: by ten years
    how: str = "kill"

    def plant(self) -> None:
        if self.how == "clock set back":
            _set_clock_back()
        if self.how.startswith("nan"):
            _corrupt_gradient(range(self.call, self.call + (2 if self.how == "nan twice" else 1)))
        if self.moment:
            module, path, when = {**MOMENTS, **ONCE}[self.moment]
            owner: Any = importlib.import_module(module)
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, name, self._wrap(getattr(owner, name), when))

    def _wrap(self, function: Callable[..., Any], when: str) -> Callable[..., Any]:
        calls = 0

        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            now = calls == self.call
            if now and when == "half":
                _do_half(self.moment, arguments)
            if now and when != "after":
                self._inject()
            result = function(*arguments, **named)
            if now and when == "after":
                self._inject()
            return result

        return wrapped

    def _inject(self) -> None:
        number = {"kill": 9, "term": 15, "int": 2, "usr1": signal.SIGUSR1}[self.how]
        os.kill(os.getpid(), number)
        if self.how != "kill":
            time.sleep(0.01)  # in another thread: the main thread must receive the signal first


def _do_half(moment: str, arguments: tuple[Any, ...]) -> None:
    """Do a part of the work of the call: write half a line, or remove half a checkpoint."""
    if moment == "in a line of the log":
        os.write(arguments[0].file, b'{"step": 7, "lo')
    else:  # a checkpoint that is being removed
        checkpoint: Path = arguments[0]
        renamed = checkpoint.with_name(f".{checkpoint.name}.old")
        checkpoint.rename(renamed)
        next(renamed.glob("*.json")).unlink()


def _set_clock_back() -> None:
    """Set the wall clock back by ten years; the monotonic clock is unchanged."""
    now, gmtime = time.time, time.gmtime
    years = 10 * 365 * 86_400
    time.time = lambda: now() - years
    time.gmtime = lambda seconds=None: gmtime(now() - years if seconds is None else seconds)


def _corrupt_gradient(steps: range) -> None:
    """Make the gradient of this process NaN in these of its steps, counted from 1."""
    import torch

    from gnano.train.train_step import TrainState

    train_step, calls = TrainState.train_step, 0

    def corrupted(this: TrainState, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls in steps:
            parameter = next(this.parallel_model.model.parameters())
            hook = parameter.register_hook(lambda grad: grad * torch.nan)
            try:
                return train_step(this, *arguments)
            finally:
                hook.remove()
        return train_step(this, *arguments)

    TrainState.train_step = corrupted  # type: ignore[method-assign,assignment]
