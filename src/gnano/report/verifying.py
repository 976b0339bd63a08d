"""Verifies every byte of a run's checkpoints against the hashes written with them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnano.train.saving.folders import list_checkpoints, lock_for_reading
from gnano.train.saving.hashes import verify_checksums


def verify_checkpoints(
    target: str, on_progress: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Verify a checkpoint, or each of a run, and yield a line for each when it is done.

    `show` is called with the checkpoint that is being read. Raises ValueError for a path without
    checkpoints, and, when all are verified, if one is damaged.
    """
    path = Path(target)
    folders = [path] if (path / "files.json").is_file() else list_checkpoints(path)
    if not folders:
        raise ValueError(
            f"{target} holds no checkpoint that could be verified; give a run or a checkpoint "
            f"(prepared data: gnano data verify FOLDER)."
        )
    damaged = []
    for number, folder in enumerate(folders, 1):
        if not lock_for_reading(folder) and folder != path:
            continue  # a running process has just replaced it by a newer one
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        on_progress(f"verifying {folder} · {number} of {len(folders)} · {size / 1e9:.2f} GB")
        try:
            verify_checksums(folder, from_disk=True)
            yield f"{folder}: whole"
        except (OSError, ValueError) as error:
            damaged.append(folder.name)
            yield f"{folder}: damaged: {error}"
    if damaged:
        raise ValueError(
            f"Damaged: {', '.join(damaged)}, {len(damaged)} of {len(folders)}; put the file back, "
            f"or delete that checkpoint and go on from another."
        )
