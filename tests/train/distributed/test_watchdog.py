"""A process that trains alone and hangs ends in a sentence; one that is slow or asleep goes on."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.train.ranks.scripts import start


def test_a_read_that_never_returns_ends_with_the_phase_and_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("shard")  # opened by nobody else: to open it hangs, as on a dead mount
    (script,) = start(
        """
def read(path):
    return open(path, "rb").read()

with World.join("cpu", stall=0.5, timing=FAST._replace(every=0.1, late=0.7)) as world:
    world.doing("step 11")
    world.doing("reading the data of step 12")
    read("shard")
"""
    )
    said = script.end()
    assert script.process.exitcode == 1
    assert f"gnano: process {script.process.pid} on " in said
    assert 'has been in "reading the data of step 12" for ' in said
    assert "A phase may take 0.5 s: train.stability.stall_timeout" in said
    assert "in read\n" in said  # the stack tells where


def test_a_run_that_is_slow_but_moves_on_is_left_alone() -> None:
    (script,) = start(
        """
with World.join("cpu", stall=0.6, timing=FAST._replace(every=0.1, late=0.7)) as world:
    for step in range(10):
        world.doing(f"step {step}")
        time.sleep(0.1)
print("done")
"""
    )
    assert script.end() == "done\n"


def test_a_phase_may_have_a_limit_of_its_own() -> None:
    (script,) = start(
        """
with World.join("cpu", stall=0.3, timing=FAST._replace(every=0.1, late=0.7)) as world:
    world.doing("waiting for data", math.inf)
    time.sleep(0.8)
    print("the data came", flush=True)
    world.doing("saving", 0.2)
    time.sleep(60)
"""
    )
    said = script.end()
    assert script.process.exitcode == 1 and said.startswith("the data came\n")
    assert 'in "saving" for' in said and "This phase may take 0.2 s." in said


def test_a_run_that_was_stopped_for_longer_than_the_limit_goes_on() -> None:
    (script,) = start(
        """
with World.join("cpu", stall=1.0, timing=FAST._replace(every=0.1, late=0.7)) as world:
    world.doing("step 1")
    print("begun", flush=True)
    for _ in range(8):  # most of it lies after the stop
        time.sleep(0.05)
print("done")
"""
    )
    script.wait_for("begun")
    script.send(signal.SIGSTOP)
    time.sleep(1.5)
    script.send(signal.SIGCONT)
    assert script.end() == "begun\ndone\n" and script.process.exitcode == 0


def test_without_a_limit_nobody_watches_and_after_the_run_neither() -> None:
    (script,) = start(
        """
with World.join("cpu", timing=FAST._replace(every=0.1, late=0.7)) as world:
    world.doing("step 1", 0.1)
    assert threading.active_count() == 1
with World.join("cpu", stall=0.3, timing=FAST._replace(every=0.1, late=0.7)) as world:
    assert threading.active_count() == 2
assert threading.active_count() == 1
time.sleep(0.6)
print("done")
"""
    )
    assert script.end() == "done\n"
