"""Functions that macOS or Windows does not have are called in `platform_support` only."""

import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from tests.small_models import with_train

import gnano
from gnano.config.recipe import Recipe
from gnano.utils import platform_support

# names that Python has on Linux and not on macOS
MISSING = (
    "sched_getaffinity sched_setaffinity sched_getparam sched_setscheduler sched_getscheduler "
    "posix_fadvise posix_fallocate copy_file_range fdatasync memfd_create splice eventfd pipe2 "
    "pidfd_open getrandom setresuid getresuid getxattr setxattr listxattr O_DIRECT O_TMPFILE "
    "O_NOATIME O_PATH POSIX_FADV_DONTNEED"
).split()
OTHER_NAMES = "RUSAGE_THREAD ru_maxrss prlimit epoll /proc/ /dev/shm /sys/ prctl renameat2".split()

# loaded by every process whose PYTHONPATH has its folder, before anything else
LIKE_MACOS = f"""
import multiprocessing, os, select, sys
from pathlib import Path

def absent(path):
    name = os.fspath(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    name = name.decode() if isinstance(name, bytes) else name
    return name.startswith(("/proc", "/sys/", "/dev/shm"))

def without(function):
    def checked(path, *arguments, **options):
        if absent(path):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        return function(path, *arguments, **options)
    return checked

def audit(event, arguments):
    if event == "open" and absent(arguments[0]):
        raise FileNotFoundError(2, "No such file or directory", os.fspath(arguments[0]))

for name in {MISSING}:
    if hasattr(os, name):
        delattr(os, name)
if hasattr(os, "process_cpu_count"):  # calls sched_getaffinity
    os.process_cpu_count = os.cpu_count
if hasattr(select, "epoll"):
    del select.epoll
os.stat, os.listdir, os.scandir = without(os.stat), without(os.listdir), without(os.scandir)
sys.addaudithook(audit)
multiprocessing.set_start_method("spawn")
Path(os.environ["AS_ON_MACOS"], str(os.getpid())).write_text(" ".join(sys.orig_argv))
"""

COMMANDS = """
import os, sys
from gnano.cli import main

assert not hasattr(os, "sched_getaffinity") and not os.path.exists("/proc/self")
for command in sys.argv[1].split(";"):
    try:
        main(command.split())
    except SystemExit as stopped:
        assert not stopped.code, (command, stopped.code)
"""


@pytest.mark.slow
def test_the_main_commands_run_without_linux_only_functions(recipe: Recipe, tmp_path: Path) -> None:
    customize, seen = tmp_path / "customize", tmp_path / "seen"
    for folder in (customize, seen):
        folder.mkdir()
    (customize / "sitecustomize.py").write_text(LIKE_MACOS)
    small = with_train(recipe, steps=2, save_every=1, eval_every=2, compile="no")
    content = asdict(small)
    content["data"] |= {"folder": str(tmp_path / "data"), "workers": 2}
    (tmp_path / "small.toml").write_text(tomli_w.dumps(content))
    steps = [
        "prepare small.toml",
        "data verify data",
        "pretrain small.toml --out run",
        "pretrain small.toml --out run --train.steps 3 --allow train.steps",
        "generate run the -n 4 --json",
        "info run",
        "runs .",
    ]
    paths = [str(customize), *sys.path]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "AS_ON_MACOS": str(seen)}
    command = [sys.executable, "-c", COMMANDS, ";".join(steps)]
    found = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    ran = [file.read_text() for file in seen.iterdir()]
    assert len([line for line in ran if "gnano.data.prepare.worker_pool" in line]) == 2


def test_no_other_module_uses_functions_of_one_system() -> None:
    pattern = re.compile("|".join(rf"\b{name}\b" for name in MISSING) + "|" + "|".join(OTHER_NAMES))
    assert pattern.search("os.sched_getaffinity(0)") and pattern.search("/proc/self")
    root = Path(gnano.__file__).parent
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        if path != Path(platform_support.__file__)
        for line in path.read_text("utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []


def test_peak_memory_is_in_bytes_on_both_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    peak = platform_support.peak_resident_bytes()
    assert 2**24 < peak < 2**40
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    in_bytes = type("Usage", (), {"ru_maxrss": usage.ru_maxrss * unit})
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "getrusage", lambda who: in_bytes)
    assert platform_support.peak_resident_bytes() == usage.ru_maxrss * unit


def test_a_process_is_running_until_it_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert platform_support.is_running(child.pid) and platform_support.is_running(os.getpid())
    child.communicate(b"\n")
    assert not platform_support.is_running(child.pid)


ON_WINDOWS = """
import os, pathlib, sys, threading
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None  # importing it is an ImportError
sys.platform = "win32"
"""


@pytest.mark.parametrize("command", [["pretrain", "demo"], ["generate", "runs/demo"], ["--help"]])
def test_on_windows_commands_name_wsl(command: list[str]) -> None:
    program = f"{ON_WINDOWS}\nfrom gnano.cli import main\nmain({command})"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.count("\n") == 1 and "WSL" in found.stderr


def test_on_windows_load_names_wsl() -> None:
    program = f"""{ON_WINDOWS}
from gnano import load
try:
    load("runs/demo")
except OSError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "WSL" in found.stdout and found.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_that_a_thread_frees_is_not_faulted_in_again() -> None:
    program = """
import resource, sys, threading
import torch
from gnano.utils.platform_support import disable_malloc_trim
if not disable_malloc_trim(in_threads=True):
    sys.exit("no glibc")
def step():
    blocks = [torch.ones(2**20) for _ in range(8)]
def count():
    for _ in range(5):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "no glibc" in done.stderr:
        pytest.skip("not glibc")
    assert int(done.stdout) < 5_000  # some 20,000 where memory is given back
