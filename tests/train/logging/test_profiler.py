"""The profiler records the requested steps, and its errors do not stop the run."""

import gzip
import json
from contextlib import closing

import pytest
import torch

from gnano.config.train_config import TrainConfig
from gnano.train.logging.profiler import StepProfiler


def compute():
    a = torch.ones(64, 64, requires_grad=True)
    (a @ a).sum().backward()


def run_profiled(run, steps, first_step, num_steps, start=0, rank=0):
    """Profile some of the steps after `start`, and return the messages."""
    messages: list[str] = []
    config = TrainConfig(profile_start=first_step, profile_steps=num_steps)
    with closing(StepProfiler(run, config, rank, messages.append)) as profiler:
        for step in range(start + 1, steps + 1):
            profiler.step(step)
            compute()
    return messages


def trace(path):
    """Return the events of a trace, with names and times."""
    return [e for e in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] if "dur" in e]


def profiled_steps(events):
    return [e for e in events if e["name"].startswith("ProfilerStep")]


def test_trace_and_table_have_the_requested_steps(tmp_path):
    messages = run_profiled(tmp_path, 20, first_step=5, num_steps=3, rank=2)
    path = tmp_path / "profile/step-00000005-rank2.json.gz"
    events = trace(path)
    assert len(profiled_steps(events)) == 3
    assert sum(e["name"] == "aten::mm" for e in events) == 3 * 3  # a product and its two gradients
    assert messages == [f"Profile: {path}"]
    table = (tmp_path / "profile/step-00000005-rank2.txt").read_text()
    assert "aten::mm" in table and "Self CPU time total" in table


@pytest.mark.parametrize(
    ("steps", "start", "first_step", "num_steps", "recorded_from", "recorded"),
    [
        (3, 0, 1, 1, 1, 1),
        (5, 0, 4, 10, 4, 2),  # the run ends inside the window
        (12, 5, 4, 4, 6, 2),  # it resumes inside the window
    ],
)
def test_only_steps_of_the_window_that_run_are_recorded(
    tmp_path, steps, start, first_step, num_steps, recorded_from, recorded
):
    run_profiled(tmp_path, steps, first_step, num_steps, start)
    (path,) = (tmp_path / "profile").glob("*.gz")
    assert path.name == f"step-{recorded_from:08}-rank0.json.gz"
    assert len(profiled_steps(trace(path))) == recorded


def test_a_run_that_resumes_after_the_window_is_not_profiled(tmp_path):
    run_profiled(tmp_path, 12, start=8, first_step=4, num_steps=4)
    assert not (tmp_path / "profile").exists()


def test_a_trace_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "profile").write_text("a file where the folder should be")
    (message,) = run_profiled(tmp_path, 8, first_step=2, num_steps=2)
    assert message.startswith("No profile, training continues: FileExistsError")


def test_a_profiler_that_does_not_start_is_reported(tmp_path, monkeypatch):
    def broken(**options):
        raise RuntimeError("another profiler is active\nand details")

    monkeypatch.setattr("gnano.train.logging.profiler.profile", broken)
    messages = run_profiled(tmp_path, 8, first_step=2, num_steps=2)
    assert messages == ["No profile, training continues: RuntimeError: another profiler is active"]
