"""A write is complete or leaves the old file, with no temporary file left."""

import errno
import os
from pathlib import Path

import pytest

from gnano.utils import atomic_io


def test_a_new_and_a_replaced_file_have_their_full_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_io.atomic_write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    atomic_io.atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_the_content_is_synced_before_the_rename_and_the_folder_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a", []
    sync = atomic_io.fsync_path

    def record(synced: Path) -> None:
        done.append((synced.is_dir(), path.exists()))
        sync(synced)

    monkeypatch.setattr(atomic_io, "fsync_path", record)
    atomic_io.atomic_write_bytes(path, b"x")
    assert done == [(False, False), (True, True)]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError) as error:
        atomic_io.atomic_write_bytes(path, b"new")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_io.atomic_replace(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_two_processes_use_different_temporary_files(tmp_path: Path) -> None:
    with atomic_io.atomic_replace(tmp_path / "a") as first:
        first.write_bytes(b"first")
        if (child := os.fork()) == 0:
            with atomic_io.atomic_replace(tmp_path / "a") as second:
                second.write_bytes(b"second")
                os._exit(0 if second != first else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert first.read_bytes() == b"first"
