"""Ranks meet, agree, and end together: whoever fails or hangs is named to the others."""

import signal
import time
from pathlib import Path

import pytest
import torch
from tests.train.ranks.scripts import start

from gnano.train.distributed.context import DistContext, first_collective_advice


def run(body: str, size: int = 2, stopped: int | None = None) -> tuple[list[int | None], list[str]]:
    """Exit codes and outputs of a script in so many ranks; a `stopped` one ends with the rest."""
    ranks = start(body, size)
    if stopped is not None:
        for rank in ranks[:stopped] + ranks[stopped + 1 :]:
            rank.process.join(70)
        ranks[stopped].process.kill()
    printed = [rank.end() for rank in ranks]
    return [rank.process.exitcode for rank in ranks], printed


def test_a_process_on_its_own_is_a_world_of_one_and_pays_nothing() -> None:
    with DistContext.init("cpu") as world:
        assert (world.rank, world.world_size, world.is_main) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert world.run_on_main(lambda: 7) == 7
        assert world.all_reduce_max(1, -2) == [1, -2]
        assert world.all_reduce_sum(torch.tensor(3.0)) == 3.0


def test_ranks_sum_compare_and_learn_from_the_first() -> None:
    codes, printed = run(
        """
with World.join("cpu") as world:
    total = world.sum(torch.tensor([1.0, me])).tolist()
    most = world.most(me, -me)
    told = world.by_first(lambda: f"from {me}")
    first = world.from_first(torch.full((2,), float(me))).tolist()
    print(total, most, told, first)
""",
        size=3,
    )
    assert codes == [0, 0, 0], printed
    assert printed == ["[3.0, 3.0] [2, 0] from 0 [0.0, 0.0]\n"] * 3


def test_a_rank_that_fails_ends_the_others_with_its_reason() -> None:
    codes, printed = run(
        """
with World.join("cpu", timing=FAST) as world:
    world.doing("step 7")
    if me == 1:
        raise OSError("the disk of this machine is gone")
    world.sum(torch.zeros(()))
    time.sleep(600)
"""
    )
    assert codes == [1, 1]
    assert "rank 0 on" in printed[0] and "stops: rank 1 on" in printed[0]
    assert "failed while step 7: OSError: the disk of this machine is gone" in printed[0]


def test_an_exchange_that_does_not_begin_ends_with_advice() -> None:
    """As where NCCL hangs over peer access that does not work: one rank never comes."""
    codes, printed = run(
        """
if me == 1:
    World.sum = lambda self, tensor: time.sleep(600)
with World.join("cpu", timing=FAST) as world:
    pass
"""
    )
    assert 1 in codes and 0 not in codes
    assert 'all 2 ranks are held up in "the first exchange" for' in printed[0]
    assert "Check that the ranks can reach one another" in printed[0]


HANG = """
with World.join("cpu", stall=1.0, timing=FAST) as world:
    for step in range(1, 100):
        world.doing(f"reading the data of step {step}")
        if step == 3 and me == 1:
            os.mkfifo("shard")
            open("shard", "rb")  # nobody writes: as on a mount that is dead
        world.doing(f"step {step}")
        world.sum(torch.zeros(()))
"""


def test_a_rank_that_hangs_is_named_with_its_phase_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes, printed = run(HANG, size=3)
    assert codes == [1, 1, 1]
    for rank, said in enumerate(printed):
        assert f"gnano: rank {rank} on" in said and "stops: rank 1 on" in said
        assert "rank 1 on" in said and 'is held up in "reading the data of step 3" for ' in said
        assert (
            'and ranks 0, 2 wait for it in "step 3"' in said
            and "train.stability.stall_timeout" in said
        )
        assert ("in <module>" in said) == (rank == 1)  # its stack alone is of interest


def test_work_of_rank_0_that_hangs_is_not_blamed_on_those_who_wait_for_it() -> None:
    codes, printed = run(
        """
with World.join("cpu", stall=1.0, timing=FAST) as world:
    world.doing("saving")
    world.by_first(lambda: time.sleep(600))
"""
    )
    assert codes == [1, 1]
    for said in printed:
        assert "rank 0 on" in said and 'held up in "saving" for' in said
        assert 'and rank 1 waits for it in "saving"' in said


def test_ranks_wait_for_as_long_as_the_one_that_is_behind_may_take() -> None:
    codes, printed = run(
        """
with World.join("cpu", stall=1.0, timing=FAST) as world:
    if me == 1:
        world.doing("waiting for data", math.inf)
        time.sleep(2.5)
    else:
        world.doing("waiting for data")
        world.doing("step 1")
    world.sum(torch.zeros(()))
    for step in range(6):  # slow, but it moves on
        world.doing(f"step {step}")
        time.sleep(0.3)
    print("done")
"""
    )
    assert (codes, printed) == ([0, 0], ["done\n"] * 2)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_is_stopped_is_found_by_its_silence(stopped: int) -> None:
    """Also the first, with which the store is silent, where the ranks look for one another."""
    codes, printed = run(
        f"""
import signal
with World.join("cpu", stall=600.0, timing=FAST._replace(silent=3.0, grace=1.0)) as world:
    world.doing("step 1")
    time.sleep(1)
    if me == {stopped}:
        os.kill(os.getpid(), signal.SIGSTOP)
    world.sum(torch.zeros(()))
""",
        stopped=stopped,
    )
    assert codes[1 - stopped] == 1
    told = ["no answer for 3 s", "rank 1 on"][stopped]
    assert told in printed[1 - stopped]


def test_ranks_that_were_all_stopped_together_go_on() -> None:
    """A laptop's sleep, or a launcher that is stopped with all it has started."""
    script = """
with World.join("cpu", stall=1.5, timing=FAST._replace(silent=2.0)) as world:
    world.doing("step 1")
    print("begun", flush=True)
    for _ in range(10):  # most of it lies after the stop
        time.sleep(0.1)
    world.sum(torch.zeros(()))
    print("done")
"""
    ranks = start(script, 2)
    for rank in ranks:
        rank.wait_for("begun")
    for rank in ranks:
        rank.send(signal.SIGSTOP)
    time.sleep(2.5)
    for rank in ranks:
        rank.send(signal.SIGCONT)
    assert [rank.end() for rank in ranks] == ["begun\ndone\n"] * 2


def test_on_a_box_without_peer_access_the_setting_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: {a, b} != {0, 2})
    said = first_collective_advice(torch.device("cuda", 0))
    assert "no peer access between GPUs 0 and 2" in said and "NCCL_P2P_DISABLE=1" in said
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: a < b)
    assert "no peer access between GPUs 0 and 1" in first_collective_advice(torch.device("cuda", 0))


@pytest.mark.parametrize("bad", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": ""}])
def test_a_half_set_environment_is_said(
    bad: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="start several ranks with torchrun"):
        DistContext.init("cpu")
