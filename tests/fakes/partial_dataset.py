"""A data folder in the state that it has while `gnano prepare` is running."""

import shutil
from dataclasses import replace
from pathlib import Path

from gnano.data.manifest import MANIFEST_NAME, Manifest, marker_path, write_marker


class PartialDataset:
    """A copy of a finished data folder that gets its tasks one by one, in the planned order."""

    def __init__(self, finished: Path, folder: Path, tasks: int = 0) -> None:
        self.finished, self.folder = finished, folder
        self.full_manifest = Manifest.load(finished)
        counts = {name: len(source.tasks) for name, source in self.full_manifest.sources.items()}
        # a token budget ends some sources before their last planned task
        self.sequence = [
            (name, task)
            for name, task in self.full_manifest.plan.iter_tasks()
            if task < counts[name]
        ]
        self.done = 0
        for name in counts:
            (folder / name).mkdir(parents=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(finished / name, folder)
        replace(self.full_manifest, complete=False, sources={}).save(folder)
        self.finish_tasks(tasks)

    def finish_tasks(self, count: int = 1) -> None:
        """Copy the files of the next tasks, and write the markers of these tasks."""
        for name, task in self.sequence[self.done : self.done + count]:
            for path in (self.finished / name).glob(f"{task:05}[-.]*"):
                shutil.copy(path, self.folder / name)
            write_marker(self.folder / name, task, self.full_manifest.sources[name].tasks[task])
            self.done += 1

    def finish_all(self) -> None:
        """Copy all remaining tasks, then replace the markers by the complete manifest."""
        self.finish_tasks(len(self.sequence))
        partial_file = self.folder / "manifest.partial"
        shutil.copy(self.finished / MANIFEST_NAME, partial_file)
        partial_file.replace(self.folder / MANIFEST_NAME)  # atomic: another process may be reading
        for name, task in self.sequence:
            marker_path(self.folder / name, task).unlink()
