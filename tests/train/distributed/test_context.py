"""Ranks connect, share results, and end together: a rank that fails or hangs is named."""

import gc
import signal
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tests.train.distributed.rank_scripts import start
from torch.distributed.flight_recorder.components.loader import read_dir

from gnano.train.distributed.context import DistContext, first_collective_advice

ranks = pytest.mark.ranks
slow = pytest.mark.slow


def run(
    body: str, size: int = 2, stopped_rank: int | None = None
) -> tuple[list[int | None], list[str]]:
    """Return exit codes and outputs of a script; `stopped_rank` is killed after the others end."""
    scripts = start(body, size)
    if stopped_rank is not None:
        for rank, script in enumerate(scripts):
            if rank != stopped_rank:
                script.process.join(70)
        scripts[stopped_rank].process.kill()
    outputs = [script.finish() for script in scripts]
    return [script.process.exitcode for script in scripts], outputs


def test_a_single_process_has_no_process_group() -> None:
    with DistContext.init("cpu") as world:
        assert (world.rank, world.world_size, world.is_main) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert world.run_on_main(lambda: 7) == 7
        assert world.all_reduce_max(1, -2) == [1, -2]
        assert world.all_reduce_sum(torch.tensor(3.0)) == 3.0


@ranks
@slow
def test_collectives_and_results_of_rank_0() -> None:
    codes, outputs = run(
        """
with DistContext.init("cpu") as world:
    total = world.all_reduce_sum(torch.tensor([1.0, rank])).tolist()
    most = world.all_reduce_max(rank, -rank)
    result = world.run_on_main(lambda: f"from {rank}")
    copy = world.broadcast(torch.full((2,), float(rank))).tolist()
    print(total, most, result, copy)
""",
        size=3,
    )
    assert codes == [0, 0, 0], outputs
    assert outputs == ["[3.0, 3.0] [2, 0] from 0 [0.0, 0.0]\n"] * 3


@ranks
@slow
def test_the_backend_does_not_give_up_before_the_watchdog() -> None:
    codes, outputs = run(
        """
with DistContext.init("cpu", timeout=7_200.0) as world:
    backend = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
    print(backend.options._timeout.total_seconds() > 7_200)
"""
    )
    assert codes == [0, 0] and outputs == ["True\n"] * 2, outputs


@ranks
@slow
def test_a_rank_that_fails_ends_the_others_with_its_reason() -> None:
    codes, outputs = run(
        """
with DistContext.init("cpu", timing=FAST) as world:
    world.set_phase("step 7")
    if rank == 1:
        raise OSError("the disk of this machine is gone")
    world.all_reduce_sum(torch.zeros(()))
    time.sleep(600)
"""
    )
    assert codes == [1, 1]
    assert "rank 0 on" in outputs[0] and "stops: rank 1 on" in outputs[0]
    assert 'failed in "step 7": OSError: the disk of this machine is gone' in outputs[0]


@ranks
@slow
def test_a_first_collective_that_hangs_ends_with_advice() -> None:
    """NCCL hangs like this if peer access does not work: one rank never joins."""
    codes, outputs = run(
        """
if rank == 1:
    DistContext.all_reduce_sum = lambda self, tensor: time.sleep(600)
with DistContext.init("cpu", timing=FAST) as world:
    pass
"""
    )
    assert 1 in codes and 0 not in codes
    assert 'all 2 ranks have been stuck in "the first collective" for' in outputs[0]
    assert "Check that the ranks can reach one another" in outputs[0]


@ranks
@slow
def test_all_ranks_name_the_one_that_hangs_with_its_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes, outputs = run(
        """
from pathlib import Path
folder = Path("run", "flight-recorder")
with DistContext.init("cpu", timeout=1.0, timing=FAST, trace_folder=folder) as world:
    for step in range(1, 100):
        world.set_phase(f"reading the data of step {step}")
        if step == 3 and rank == 1:
            os.mkfifo("shard")
            open("shard", "rb")  # without a writer it hangs, as on a dead mount
        world.set_phase(f"step {step}")
        world.all_reduce_sum(torch.zeros(()))
""",
        size=3,
    )
    assert codes == [1, 1, 1]
    for rank, output in enumerate(outputs):
        assert f"gnano: rank {rank} on" in output and "stops: rank 1 on" in output
        assert 'has been stuck in "reading the data of step 3" for ' in output
        assert 'and ranks 0, 2 wait for it in "step 3"' in output
        assert "train.stability.stall_timeout" in output
        assert ("in <module>" in output) == (rank == 1)  # only its stack matters
        assert f"run/flight-recorder/rank_{rank} has its last collectives" in output
    traces, _ = read_dir(
        Namespace(trace_dir=str(tmp_path / "run" / "flight-recorder"), prefix=None)
    )
    gc.enable()  # PyTorch's reader disables it
    sums = {trace["rank"]: len(trace["entries"]) for trace in traces.values()}
    assert sums == {0: 4, 1: 3, 2: 4}  # the others wait in the sum of step 3


@ranks
@slow
def test_a_hang_is_reported_even_if_the_folder_of_the_run_hangs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes, outputs = run(
        """
from pathlib import Path
Path.mkdir = lambda *_, **__: time.sleep(600)  # as on a dead mount
with DistContext.init("cpu", timeout=1.0, timing=FAST, trace_folder=Path("run")) as world:
    world.set_phase("saving")
    time.sleep(600)
"""
    )
    assert codes == [1, 1]
    for output in outputs:
        assert 'all 2 ranks have been stuck in "saving"' in output
        assert "has its last collectives" not in output


@ranks
@slow
def test_ranks_that_wait_for_rank_0_are_not_blamed_for_its_hang() -> None:
    codes, outputs = run(
        """
with DistContext.init("cpu", timeout=1.0, timing=FAST) as world:
    world.set_phase("saving")
    world.run_on_main(lambda: time.sleep(600))
"""
    )
    assert codes == [1, 1]
    for output in outputs:
        assert "rank 0 on" in output and 'has been stuck in "saving" for' in output
        assert 'and rank 1 waits for it in "saving"' in output


@ranks
@slow
def test_ranks_wait_as_long_as_the_slowest_one_may_take() -> None:
    codes, outputs = run(
        """
with DistContext.init("cpu", timeout=1.0, timing=FAST) as world:
    if rank == 1:
        world.set_phase("waiting for data", math.inf)
        time.sleep(2.5)
    else:
        world.set_phase("waiting for data")
        world.set_phase("step 1")
    world.all_reduce_sum(torch.zeros(()))
    for step in range(6):  # slow, but the phases change
        world.set_phase(f"step {step}")
        time.sleep(0.3)
    print("done")
"""
    )
    assert (codes, outputs) == ([0, 0], ["done\n"] * 2)


@ranks
@slow
@pytest.mark.parametrize("stopped_rank", [0, 1])
def test_a_stopped_rank_is_detected_by_its_missing_heartbeat(stopped_rank: int) -> None:
    """With rank 0, the store that the ranks share stops too."""
    codes, outputs = run(
        f"""
import signal
timing = FAST._replace(heartbeat_timeout=3.0, exit_grace=1.0)
with DistContext.init("cpu", timeout=600.0, timing=timing) as world:
    world.set_phase("step 1")
    time.sleep(1)
    if rank == {stopped_rank}:
        os.kill(os.getpid(), signal.SIGSTOP)
    world.all_reduce_sum(torch.zeros(()))
""",
        stopped_rank=stopped_rank,
    )
    assert codes[1 - stopped_rank] == 1
    reason = ["no response for 3 s", "rank 1 on"][stopped_rank]
    assert reason in outputs[1 - stopped_rank]


@ranks
@slow
def test_ranks_that_were_all_paused_together_continue() -> None:
    """A laptop that sleeps, or a launcher that is stopped with its processes."""
    scripts = start(
        """
timing = FAST._replace(heartbeat_timeout=2.0)
with DistContext.init("cpu", timeout=1.5, timing=timing) as world:
    world.set_phase("step 1")
    print("started", flush=True)
    for _ in range(10):  # most of it runs after the pause
        time.sleep(0.1)
    world.all_reduce_sum(torch.zeros(()))
    print("done")
""",
        2,
    )
    for script in scripts:
        script.wait_for("started")
    for script in scripts:
        script.send(signal.SIGSTOP)
    time.sleep(2.5)
    for script in scripts:
        script.send(signal.SIGCONT)
    assert [script.finish() for script in scripts] == ["started\ndone\n"] * 2


def test_without_peer_access_the_setting_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: {a, b} != {0, 2})
    advice = first_collective_advice(torch.device("cuda", 0))
    assert "no peer access between GPUs 0 and 2" in advice and "NCCL_P2P_DISABLE=1" in advice
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: a < b)
    assert "no peer access between GPUs 0 and 1" in first_collective_advice(torch.device("cuda", 0))


@pytest.mark.parametrize("bad", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": ""}])
def test_an_incomplete_environment_is_refused(
    bad: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    message = "start several ranks with torchrun"
    with pytest.raises(ValueError, match=message), DistContext.init("cpu"):
        pass
