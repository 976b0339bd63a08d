"""A file is there whole, or as it was before, with nothing left beside it."""

import errno
import os
from pathlib import Path

import pytest

from gnano.utils import atomic_io


def test_a_new_file_and_one_that_is_replaced_have_all_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_io.atomic_write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    atomic_io.atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a", []
    sync = atomic_io.fsync_path

    def noted(what: Path) -> None:
        done.append((what.is_dir(), path.exists()))
        sync(what)

    monkeypatch.setattr(atomic_io, "fsync_path", noted)
    atomic_io.atomic_write_bytes(path, b"x")
    assert done == [(False, False), (True, True)]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_what_fails_leaves_the_old_content_alone_and_names_the_file(
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


def test_an_interrupted_write_leaves_the_old_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_io.atomic_replace(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_two_processes_that_write_one_file_do_not_share_a_temporary(tmp_path: Path) -> None:
    with atomic_io.atomic_replace(tmp_path / "a") as ours:
        ours.write_bytes(b"ours")
        if (child := os.fork()) == 0:
            with atomic_io.atomic_replace(tmp_path / "a") as theirs:
                theirs.write_bytes(b"theirs")
                os._exit(0 if theirs != ours else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert ours.read_bytes() == b"ours"
