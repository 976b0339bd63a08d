"""A process that hangs ends with an error; one that is slow or was paused continues.

The rank that delays the others is named with its phase; ranks that wait are not blamed.
"""

import math
import os
import signal
import time
from pathlib import Path

import pytest
from tests.train.distributed.rank_scripts import start

from gnano.train.distributed.watchdog import Heartbeat, describe_hang, slowest_ranks

ranks = pytest.mark.ranks
slow = pytest.mark.slow


@ranks
@slow
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


@ranks
@slow
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


@ranks
@slow
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


@ranks
@slow
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


@ranks
@slow
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


def heartbeat(number: float, phase: str, host: str = "gpu-a") -> Heartbeat:
    return Heartbeat(7, 4711, host, number, phase)


def test_the_rank_that_is_behind_is_named_with_those_that_wait() -> None:
    heartbeats = {rank: heartbeat(25, "step 12") for rank in range(4)}
    heartbeats[1] = heartbeat(24, "reading the data of step 12", "gpu-b")
    assert slowest_ranks(heartbeats) == [1]
    assert describe_hang(heartbeats, 1_800) == (
        'rank 1 on gpu-b has been stuck in "reading the data of step 12" for 1,800 s, '
        'and ranks 0, 2, 3 wait for it in "step 12"'
    )


def test_all_ranks_in_the_same_phase() -> None:
    heartbeats = {rank: heartbeat(25, "step 12", f"gpu-{rank}") for rank in range(1_000)}
    message = 'all 1000 ranks have been stuck in "step 12" for 1,800 s'
    assert describe_hang(heartbeats, 1_800) == message


def test_a_large_job_fits_one_line() -> None:
    heartbeats = {rank: heartbeat(25, "step 12", f"gpu-{rank}") for rank in range(1_000)}
    heartbeats |= {rank: heartbeat(24, "reading", f"gpu-{rank}") for rank in range(8, 16)}
    assert describe_hang(heartbeats, 1_800) == (
        "ranks 8-15 on gpu-8, gpu-9, gpu-10, gpu-11 and 4 more "
        'have been stuck in "reading" for 1,800 s, '
        'and ranks 0-7, 16-999 wait for them in "step 12"'
    )


def test_ranks_that_wait_for_work_of_rank_0_are_reported_as_waiting() -> None:
    heartbeats = {0: heartbeat(30, "saving"), 1: heartbeat(math.inf, "saving")}
    assert describe_hang(heartbeats, 1_800) == (
        'rank 0 on gpu-a has been stuck in "saving" for 1,800 s, '
        'and rank 1 waits for it in "saving"'
    )
