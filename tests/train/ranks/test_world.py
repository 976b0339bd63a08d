"""Ranks meet, agree, and end together: whoever fails or hangs is named to the others."""

import sys

import pytest
import torch
from tests.processes import as_ranks, ends

from gnano.train.ranks.lifeline import GRACE
from gnano.train.ranks.peers import advice, unreachable
from gnano.train.ranks.world import World

START = """
import os, time
import torch
from gnano.train.ranks import world as ranks
from gnano.train.ranks.world import World
me = int(os.environ["RANK"])
"""


def run(body: str, size: int = 2) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of a script in so many ranks."""
    ranks = as_ranks([sys.executable, "-c", START + body], size)
    printed = ends(ranks, timeout=GRACE + 60)
    return [rank.returncode for rank in ranks], printed


def test_a_process_on_its_own_is_a_world_of_one_and_pays_nothing() -> None:
    with World.join("cpu") as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert world.by_first(lambda: 7) == 7
        assert world.most(1, -2) == [1, -2]
        assert world.sum(torch.tensor(3.0)) == 3.0


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
with World.join("cpu") as world:
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
ranks.FIRST_EXCHANGE = 2.0
if me == 1:
    ranks.World.sum = lambda self, tensor: time.sleep(600)
with World.join("cpu") as world:
    pass
"""
    )
    assert 1 in codes and 0 not in codes
    assert "held up in the first exchange: not done in 2 s. Check that the ranks" in printed[0]


def test_on_a_box_without_peer_access_the_setting_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: {a, b} != {0, 2})
    said = advice(torch.device("cuda", 0))
    assert "no peer access between GPUs 0 and 2" in said and "NCCL_P2P_DISABLE=1" in said
    assert unreachable(2, lambda a, b: a < b) == [(0, 1)]  # one way is not enough


@pytest.mark.parametrize("bad", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": ""}])
def test_a_half_set_environment_is_said(
    bad: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="start several ranks with torchrun"):
        World.join("cpu")
