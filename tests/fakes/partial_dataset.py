"""Data folders as they were before `gnano prepare` had finished them."""

import shutil
from dataclasses import replace
from pathlib import Path

from gnano.data.manifest import MANIFEST_NAME, Manifest, marker_path, write_marker


class Growing:
    """A copy of a finished folder that gets its tasks one after another, in their sequence."""

    def __init__(self, finished: Path, folder: Path, tasks: int = 0) -> None:
        self.finished, self.folder = finished, folder
        self.whole = Manifest.load(finished)
        counts = {name: len(source.tasks) for name, source in self.whole.sources.items()}
        # a budget ends some sources before their last task
        self.sequence = [
            (name, task) for name, task in self.whole.plan.iter_tasks() if task < counts[name]
        ]
        self.done = 0
        for name in counts:
            (folder / name).mkdir(parents=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(finished / name, folder)
        replace(self.whole, complete=False, sources={}).save(folder)
        self.grow(tasks)

    def grow(self, tasks: int = 1) -> None:
        """Finish so many tasks more."""
        for name, task in self.sequence[self.done : self.done + tasks]:
            for path in (self.finished / name).glob(f"{task:05}[-.]*"):
                shutil.copy(path, self.folder / name)
            write_marker(self.folder / name, task, self.whole.sources[name].tasks[task])
            self.done += 1

    def conclude(self) -> None:
        """All the rest, and the end: one manifest instead of the markers."""
        self.grow(len(self.sequence))
        shutil.copy(self.finished / MANIFEST_NAME, self.folder / "arriving")
        (self.folder / "arriving").replace(
            self.folder / MANIFEST_NAME
        )  # another process may be reading
        for name, task in self.sequence:
            marker_path(self.folder / name, task).unlink()
