"""A process that trains alone and hangs ends in a sentence; one that is slow or asleep goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

START = """
import math, sys, time
from gnano.train.ranks.stall import Timing
from gnano.train.ranks.world import World
FAST = Timing(every=0.1, late=0.7)
"""


def start(body: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", START + body, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def end(process: subprocess.Popen[bytes]) -> str:
    try:
        return process.communicate(timeout=60)[0].decode()
    finally:
        process.kill()


def test_a_read_that_never_returns_ends_with_the_phase_and_the_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shard")  # opened by nobody else: to open it hangs, as on a dead mount
    process = start(
        """
def read(path):
    return open(path, "rb").read()

with World.join("cpu", stall=0.5, timing=FAST) as world:
    world.doing("step 11")
    world.doing("reading the data of step 12")
    read(sys.argv[1])
""",
        str(tmp_path / "shard"),
    )
    said = end(process)
    assert process.returncode == 1
    assert f"gnano: process {process.pid} on " in said
    assert 'has been in "reading the data of step 12" for ' in said
    assert "A phase may take 0.5 s: train.guard.stall" in said
    assert "in read\n" in said  # the stack tells where


def test_a_run_that_is_slow_but_moves_on_is_left_alone() -> None:
    process = start(
        """
with World.join("cpu", stall=0.6, timing=FAST) as world:
    for step in range(10):
        world.doing(f"step {step}")
        time.sleep(0.1)
print("done")
"""
    )
    assert end(process) == "done\n"


def test_a_phase_may_have_a_limit_of_its_own() -> None:
    process = start(
        """
with World.join("cpu", stall=0.3, timing=FAST) as world:
    world.doing("waiting for data", math.inf)
    time.sleep(0.8)
    print("the data came", flush=True)
    world.doing("saving", 0.2)
    time.sleep(60)
"""
    )
    said = end(process)
    assert process.returncode == 1 and said.startswith("the data came\n")
    assert 'in "saving" for' in said and "This phase may take 0.2 s." in said


def test_a_run_that_was_stopped_for_longer_than_the_limit_goes_on() -> None:
    process = start(
        """
with World.join("cpu", stall=1.0, timing=FAST) as world:
    world.doing("step 1")
    print("begun", flush=True)
    for _ in range(8):  # most of it lies after the stop
        time.sleep(0.05)
print("done")
"""
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    assert end(process) == "done\n" and process.returncode == 0


def test_without_a_limit_nobody_watches_and_after_the_run_neither() -> None:
    process = start(
        """
import threading
with World.join("cpu", timing=FAST) as world:
    world.doing("step 1", 0.1)
    assert threading.active_count() == 1
with World.join("cpu", stall=0.3, timing=FAST) as world:
    assert threading.active_count() == 2
assert threading.active_count() == 1
time.sleep(0.6)
print("done")
"""
    )
    assert end(process) == "done\n"
