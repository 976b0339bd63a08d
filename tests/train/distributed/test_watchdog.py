"""A process that hangs ends with an error; one that is slow or was paused continues."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.train.distributed.rank_scripts import start

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def test_a_read_that_never_returns_ends_with_phase_and_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("shard")  # without a writer, opening it hangs, as on a dead mount
    (script,) = start(
        """
def read(path):
    return open(path, "rb").read()

timing = FAST._replace(check_interval=0.1, pause_threshold=0.7)
with DistContext.init("cpu", timeout=0.5, timing=timing) as world:
    world.set_phase("step 11")
    world.set_phase("reading the data of step 12")
    read("shard")
"""
    )
    output = script.finish()
    assert script.process.exitcode == 1
    assert f"gnano: process {script.process.pid} on " in output
    assert 'has been in "reading the data of step 12" for ' in output
    assert "A phase may take 0.5 s; raise train.stability.stall_timeout" in output
    assert "in read\n" in output  # the stack


def test_a_slow_run_whose_phases_change_continues() -> None:
    (script,) = start(
        """
timing = FAST._replace(check_interval=0.1, pause_threshold=0.7)
with DistContext.init("cpu", timeout=0.6, timing=timing) as world:
    for step in range(10):
        world.set_phase(f"step {step}")
        time.sleep(0.1)
print("done")
"""
    )
    assert script.finish() == "done\n"


def test_a_phase_may_have_its_own_limit() -> None:
    (script,) = start(
        """
timing = FAST._replace(check_interval=0.1, pause_threshold=0.7)
with DistContext.init("cpu", timeout=0.3, timing=timing) as world:
    world.set_phase("waiting for data", math.inf)
    time.sleep(0.8)
    print("the data is complete", flush=True)
    world.set_phase("saving", 0.2)
    time.sleep(60)
"""
    )
    output = script.finish()
    assert script.process.exitcode == 1 and output.startswith("the data is complete\n")
    assert 'in "saving" for' in output and "This phase may take 0.2 s." in output


def test_a_run_paused_for_longer_than_the_limit_continues() -> None:
    (script,) = start(
        """
timing = FAST._replace(check_interval=0.1, pause_threshold=0.7)
with DistContext.init("cpu", timeout=1.0, timing=timing) as world:
    world.set_phase("step 1")
    print("started", flush=True)
    for _ in range(8):  # most of it runs after the pause
        time.sleep(0.05)
print("done")
"""
    )
    script.wait_for("started")
    script.send(signal.SIGSTOP)
    time.sleep(1.5)
    script.send(signal.SIGCONT)
    assert script.finish() == "started\ndone\n" and script.process.exitcode == 0


def test_there_is_no_watchdog_without_a_limit_or_after_the_run() -> None:
    (script,) = start(
        """
timing = FAST._replace(check_interval=0.1, pause_threshold=0.7)
with DistContext.init("cpu", timing=timing) as world:
    world.set_phase("step 1", 0.1)
    assert threading.active_count() == 1
with DistContext.init("cpu", timeout=0.3, timing=timing) as world:
    assert threading.active_count() == 2
assert threading.active_count() == 1
time.sleep(0.6)
print("done")
"""
    )
    assert script.finish() == "done\n"
