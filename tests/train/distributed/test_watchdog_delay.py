"""Whoever holds the others up is named, with what it is doing; those who wait are not blamed."""

import math

from gnano.train.distributed.watchdog import Heartbeat, describe_hang, slowest_ranks


def at(number: float, phase: str, host: str = "gpu-a") -> Heartbeat:
    return Heartbeat(7, 4711, host, number, phase)


def test_the_rank_that_is_behind_is_named_and_who_waits_for_it() -> None:
    signs = {rank: at(25, "step 12") for rank in range(4)}
    signs[1] = at(24, "reading the data of step 12", "gpu-b")
    assert slowest_ranks(signs) == [1]
    assert describe_hang(signs, 1_800) == (
        'rank 1 on gpu-b is held up in "reading the data of step 12" for 1,800 s, '
        'and ranks 0, 2, 3 wait for it in "step 12"'
    )


def test_ranks_that_are_all_in_the_same_phase_are_said_to_be() -> None:
    signs = {rank: at(25, "step 12", f"gpu-{rank}") for rank in range(1_000)}
    assert describe_hang(signs, 1_800) == 'all 1000 ranks are held up in "step 12" for 1,800 s'


def test_a_large_job_is_told_in_a_line() -> None:
    signs = {rank: at(25, "step 12", f"gpu-{rank}") for rank in range(1_000)}
    signs |= {rank: at(24, "reading", f"gpu-{rank}") for rank in range(8, 16)}
    assert describe_hang(signs, 1_800) == (
        "ranks 8-15 on gpu-8, gpu-9, gpu-10, gpu-11 and 4 more "
        'are held up in "reading" for 1,800 s, '
        'and ranks 0-7, 16-999 wait for them in "step 12"'
    )


def test_what_rank_0_does_for_all_is_what_the_others_wait_for() -> None:
    signs = {0: at(30, "saving"), 1: at(math.inf, "saving")}
    assert describe_hang(signs, 1_800) == (
        'rank 0 on gpu-a is held up in "saving" for 1,800 s, and rank 1 waits for it in "saving"'
    )


def test_a_sign_comes_back_as_it_was_left() -> None:
    for sign in (at(25, "step 12"), at(math.inf, 'a phase with | and "quotes"')):
        assert Heartbeat.decode(sign.encode().encode()) == sign
