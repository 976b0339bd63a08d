"""The rank that delays the others is named with its phase; ranks that wait are not blamed."""

import json
import math

from gnano.train.distributed.heartbeat import Heartbeat, describe_hang, slowest_ranks


def heartbeat(number: float, phase: str, host: str = "gpu-a") -> Heartbeat:
    return Heartbeat(7, 4711, host, number, phase)


def test_the_rank_that_is_behind_is_named_with_those_that_wait():
    heartbeats = {rank: heartbeat(25, "step 12") for rank in range(4)}
    heartbeats[1] = heartbeat(24, "reading the data of step 12", "gpu-b")
    assert slowest_ranks(heartbeats) == [1]
    assert describe_hang(heartbeats, 1_800) == (
        'rank 1 on gpu-b has been stuck in "reading the data of step 12" for 1,800 s, '
        'and ranks 0, 2, 3 wait for it in "step 12"'
    )


def test_all_ranks_in_the_same_phase():
    heartbeats = {rank: heartbeat(25, "step 12", f"gpu-{rank}") for rank in range(1_000)}
    message = 'all 1000 ranks have been stuck in "step 12" for 1,800 s'
    assert describe_hang(heartbeats, 1_800) == message


def test_a_large_job_fits_one_line():
    heartbeats = {rank: heartbeat(25, "step 12", f"gpu-{rank}") for rank in range(1_000)}
    heartbeats |= {rank: heartbeat(24, "reading", f"gpu-{rank}") for rank in range(8, 16)}
    assert describe_hang(heartbeats, 1_800) == (
        "ranks 8-15 on gpu-8, gpu-9, gpu-10, gpu-11 and 4 more "
        'have been stuck in "reading" for 1,800 s, '
        'and ranks 0-7, 16-999 wait for them in "step 12"'
    )


def test_ranks_that_wait_for_work_of_rank_0_are_reported_as_waiting():
    heartbeats = {0: heartbeat(30, "saving"), 1: heartbeat(math.inf, "saving")}
    assert describe_hang(heartbeats, 1_800) == (
        'rank 0 on gpu-a has been stuck in "saving" for 1,800 s, '
        'and rank 1 waits for it in "saving"'
    )


def test_a_heartbeat_survives_encoding():
    for beat in (heartbeat(25, "step 12"), heartbeat(math.inf, 'a phase with | and "quotes"')):
        assert Heartbeat.decode(json.dumps(beat).encode()) == beat
