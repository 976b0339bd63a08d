"""A disk that is full, read-only or gone costs a warning; the training goes on, nothing is lost."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.chaos.runs import begin, history, output, run
from tests.processes import fingerprint
from tests.small_models import with_train

from gnano.checkpoint.checksums import verify_checksums
from gnano.checkpoint.format import find_checkpoint, list_checkpoints
from gnano.config.recipe import Recipe

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a small file system of its own, or another view of a folder."""
    mounted: list[Path] = []

    def made(folder: Path, *options: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine does not let us mount a disk: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield made
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def slow(chaotic: Recipe) -> Recipe:
    """Long enough for a test to step in; tries a failed save again at once."""
    return with_train(chaotic, steps=400, save_every=40, eval_every=0)


@pytest.fixture(scope="module")
def calm_slow(slow: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "slow"
    assert run(slow, folder) == [0]
    return folder


def wait_for(text: str, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while text not in output(folder):
        assert time.monotonic() < deadline, output(folder)
        time.sleep(0.01)


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_a_disk_that_fills_up_pauses_saving_until_there_is_room(
    slow: Recipe, calm_slow: Path, tmp_path: Path, mount: Mount, fault: list[str]
) -> None:
    one = size_of(find_checkpoint(calm_slow))
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={6 * one}", "tmpfs")
    folder, filler = disk / "run", disk / "filler"
    [process] = begin(slow, folder)
    wait_for("padding", folder)
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    wait_for("could not be saved", folder)
    assert process.exitcode is None
    fault.append("disk: full")
    filler.unlink()
    process.join(120)
    assert process.exitcode == 0, output(folder)
    assert history(folder) == history(calm_slow)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm_slow))


def test_a_disk_that_stays_full_ends_a_stopped_run_with_a_sentence(
    slow: Recipe, calm_slow: Path, tmp_path: Path, mount: Mount, fault: list[str]
) -> None:
    one = size_of(find_checkpoint(calm_slow))
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={int(2.6 * one)}", "tmpfs")
    folder = disk / "run"
    [process] = begin(slow, folder)
    wait_for("could not be saved", folder)
    assert process.pid is not None
    os.kill(process.pid, 15)
    process.join(60)
    fault.append("disk: full, and a stop")
    assert process.exitcode == 2, output(folder)
    assert "No space left on device" in output(folder).splitlines()[-1]
    assert "Traceback" not in output(folder)
    for checkpoint in list_checkpoints(folder):
        verify_checksums(checkpoint)
    assert list_checkpoints(folder)
    subprocess.run(["mount", "-o", f"remount,size={9 * one}", str(disk)], check=True)
    assert run(slow, folder) == [0], output(folder)
    assert history(folder) == history(calm_slow)


def test_a_folder_made_read_only_pauses_saving_until_it_is_not(
    slow: Recipe, calm_slow: Path, tmp_path: Path, mount: Mount, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    place = folder / "checkpoints"
    place.mkdir(parents=True)
    mount(place, "--bind", str(place))
    [process] = begin(slow, folder)
    wait_for("padding", folder)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    wait_for("could not be saved (", folder)
    assert "Read-only file system" in output(folder)
    fault.append("disk: read-only")
    subprocess.run(["mount", "-o", "remount,bind,rw", str(place)], check=True)
    process.join(120)
    assert process.exitcode == 0, output(folder)
    assert history(folder) == history(calm_slow)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm_slow))


def test_a_mount_that_vanishes_is_waited_for_and_nothing_is_written_in_its_place(
    slow: Recipe, calm_slow: Path, tmp_path: Path, mount: Mount, fault: list[str]
) -> None:
    folder, real = tmp_path / "run", tmp_path / "real"
    (real / "run" / "checkpoints").mkdir(parents=True)
    mount(tmp_path / "run", "--bind", str(real / "run"))
    [process] = begin(slow, folder)
    wait_for("padding", folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    wait_for("could not be saved (", folder)
    assert list(folder.iterdir()) == []
    fault.append("disk: mount vanished")
    subprocess.run(["mount", "--bind", str(real / "run"), str(folder)], check=True)
    process.join(120)
    assert process.exitcode == 0, output(folder)
    assert history(folder) == history(calm_slow)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm_slow))
