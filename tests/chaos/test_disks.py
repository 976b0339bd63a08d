"""With a full, read-only or unmounted disk, training warns and continues; nothing is lost."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.chaos.runs import history, output, run, start, wait_for_output
from tests.processes import fingerprint
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import find_checkpoint, list_checkpoints, verify_checksums
from gnano.config.recipe import Recipe

pytestmark = pytest.mark.slow

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return a function that mounts a small file system, or another view of a folder."""
    mounted: list[Path] = []

    def mount_at(folder: Path, *options: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine does not permit mounting a disk: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount_at
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def long_recipe(chaos_recipe: Recipe) -> Recipe:
    """Long enough for a test to change the disk during the run."""
    return with_train(chaos_recipe, steps=400, save_every=40, eval_every=0)


@pytest.fixture(scope="module")
def long_reference(long_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "long"
    assert run(long_recipe, folder) == [0]
    return folder


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_a_full_disk_pauses_saving_until_there_is_space(
    long_recipe: Recipe, long_reference: Path, tmp_path: Path, mount: Mount, survived: list[str]
) -> None:
    one = size_of(find_checkpoint(long_reference))
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={6 * one}", "tmpfs")
    folder, filler = disk / "run", disk / "filler"
    [process] = start(long_recipe, folder)
    wait_for_output("padding", folder)
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    wait_for_output("could not be saved", folder)
    assert process.exitcode is None
    survived.append("disk: full")
    filler.unlink()
    process.join(120)
    assert process.exitcode == 0, output(folder)
    assert history(folder) == history(long_reference)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(long_reference))


def test_a_disk_that_stays_full_ends_a_stopped_run_with_an_error(
    long_recipe: Recipe, long_reference: Path, tmp_path: Path, mount: Mount, survived: list[str]
) -> None:
    one = size_of(find_checkpoint(long_reference))
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={int(2.6 * one)}", "tmpfs")
    folder = disk / "run"
    [process] = start(long_recipe, folder)
    wait_for_output("could not be saved", folder)
    assert process.pid is not None
    os.kill(process.pid, 15)
    process.join(60)
    survived.append("disk: full, and a stop")
    assert process.exitcode == 2, output(folder)
    assert "No space left on device" in output(folder).splitlines()[-1]
    assert "Traceback" not in output(folder)
    for checkpoint in list_checkpoints(folder):
        verify_checksums(checkpoint)
    assert list_checkpoints(folder)
    subprocess.run(["mount", "-o", f"remount,size={9 * one}", str(disk)], check=True)
    assert run(long_recipe, folder) == [0], output(folder)
    assert history(folder) == history(long_reference)


def test_a_read_only_folder_pauses_saving_until_it_is_writable(
    long_recipe: Recipe, long_reference: Path, tmp_path: Path, mount: Mount, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    place = folder / "checkpoints"
    place.mkdir(parents=True)
    mount(place, "--bind", str(place))
    [process] = start(long_recipe, folder)
    wait_for_output("padding", folder)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    wait_for_output("could not be saved (", folder)
    assert "Read-only file system" in output(folder)
    survived.append("disk: read-only")
    subprocess.run(["mount", "-o", "remount,bind,rw", str(place)], check=True)
    process.join(120)
    assert process.exitcode == 0, output(folder)
    assert history(folder) == history(long_reference)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(long_reference))


def test_an_unmounted_disk_is_waited_for_and_nothing_is_written_to_its_mount_point(
    long_recipe: Recipe, long_reference: Path, tmp_path: Path, mount: Mount, survived: list[str]
) -> None:
    folder, real = tmp_path / "run", tmp_path / "real"
    (real / "run" / "checkpoints").mkdir(parents=True)
    mount(tmp_path / "run", "--bind", str(real / "run"))
    [process] = start(long_recipe, folder)
    wait_for_output("padding", folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    wait_for_output("could not be saved (", folder)
    assert list(folder.iterdir()) == []
    survived.append("disk: mount vanished")
    subprocess.run(["mount", "--bind", str(real / "run"), str(folder)], check=True)
    process.join(120)
    assert process.exitcode == 0, output(folder)
    assert history(folder) == history(long_reference)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(long_reference))
