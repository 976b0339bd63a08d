"""The checkpoints of a run, as the training loop uses them.

Every rank has a manager; only the one of the main rank has a `saver` and writes.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

from gnano.train.config import TrainConfig
from gnano.train.saving.checkpoint import Beside
from gnano.train.saving.folders import FOLDER, checkpoints
from gnano.train.saving.saver import LogEvent, Saver
from gnano.utils.formatting import format_gb


class Keeping:
    def __init__(
        self,
        run: Path,
        settings: TrainConfig,
        beside: Beside,
        events: LogEvent,
        say: Callable[[str], None],
        first: bool,
    ) -> None:
        self.run, self.settings, self.events, self.say = run, settings, events, say
        self.saver: Saver | None = None
        if first:
            (run / FOLDER).mkdir(exist_ok=True)
            self.saver = Saver(run, settings, beside, events, say)

    def damaged(self, aside: Path, reason: str) -> None:
        """Report that a damaged checkpoint was moved to `aside`."""
        self.events("damaged", folder=aside.name, reason=reason)
        self.say(f"{reason} The run goes on from the checkpoint before it; {aside} is left to you.")

    def foresee(self, size: int) -> None:
        """Raise ValueError where a checkpoint of `size` bytes does not fit; warn if only a few do.

        For the main rank alone.
        """
        free = shutil.disk_usage(self.run / FOLDER).free
        # the newest ones, the best, and the next, which is written before an old one is removed
        most = self.settings.keep + self.settings.keep_best + 1
        still = max(most - len(checkpoints(self.run)), 1)
        taken = format_gb(size, ".3g")
        room = f"{format_gb(free, '.3g')} are free in {self.run}, a checkpoint takes {taken}"
        if free < size:
            raise ValueError(f"{room}: free some space, or choose another folder (--out).")
        if free < size * still:
            self.say(f"{room}, and {still} more are kept (train.keep): that will not fit.")

    def look(self) -> None:
        """Report how the write in progress is going."""
        if self.saver:
            self.saver.look()

    def ready(self) -> None:
        """Wait until no write is in progress; give up one that fails."""
        if self.saver:
            self.saver.ready()

    def finish(self, stopped_at: Callable[[], float | None]) -> None:
        """Wait until the write in progress is done, as `Saver.finish` does."""
        if self.saver:
            self.saver.finish(stopped_at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Finish a write after an error in training; abandon it when the process is to end."""
        if isinstance(error, Exception):
            self.ready()
        elif error is not None and self.saver:
            self.saver.leave()
