"""The profiler records the requested steps, and its errors do not stop the run."""

import gzip
import json

import torch

from gnano.train.logging.profiler import StepProfiler


def compute():
    a = torch.ones(64, 64, requires_grad=True)
    (a @ a).sum().backward()


def run_steps(profiler, steps, start=0):
    for step in range(start + 1, steps + 1):
        profiler.step(step)
        compute()


def trace(path):
    """Return the events of a trace, with names and times."""
    return [e for e in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] if "dur" in e]


def profiled_steps(events):
    return [e for e in events if e["name"].startswith("ProfilerStep")]


def test_trace_and_table_have_the_requested_steps(tmp_path):
    messages: list[str] = []
    with StepProfiler(
        tmp_path, first_step=5, num_steps=3, rank=2, notify=messages.append
    ) as profiler:
        run_steps(profiler, 20)
    path = tmp_path / "profile/step-00000005-rank2.json.gz"
    events = trace(path)
    assert len(profiled_steps(events)) == 3
    assert sum(e["name"] == "aten::mm" for e in events) == 3 * 3  # a product and its two gradients
    assert messages == [f"Profile: {path}"]
    table = (tmp_path / "profile/step-00000005-rank2.txt").read_text()
    assert "aten::mm" in table and "Self CPU time total" in table


def test_the_first_step_can_be_profiled(tmp_path):
    with StepProfiler(tmp_path, first_step=1, num_steps=1) as profiler:
        run_steps(profiler, 3)
    assert len(profiled_steps(trace(tmp_path / "profile/step-00000001-rank0.json.gz"))) == 1


def test_a_run_that_ends_inside_the_window_writes_a_trace(tmp_path):
    with StepProfiler(tmp_path, first_step=4, num_steps=10) as profiler:
        run_steps(profiler, 5)
    assert len(profiled_steps(trace(tmp_path / "profile/step-00000004-rank0.json.gz"))) == 2


def test_a_run_that_resumes_inside_the_window_records_the_rest(tmp_path):
    with StepProfiler(tmp_path, first_step=4, num_steps=4) as profiler:
        run_steps(profiler, 12, start=5)
    (path,) = (tmp_path / "profile").glob("*.gz")
    assert path.name == "step-00000006-rank0.json.gz"
    assert len(profiled_steps(trace(path))) == 2


def test_a_run_that_resumes_after_the_window_is_not_profiled(tmp_path):
    with StepProfiler(tmp_path, first_step=4, num_steps=4) as profiler:
        run_steps(profiler, 12, start=8)
    assert not (tmp_path / "profile").exists()


def test_without_a_window_the_profiler_never_starts(tmp_path, monkeypatch):
    def refuse(**options):
        raise AssertionError("the profiler was started")

    monkeypatch.setattr("gnano.train.logging.profiler.profile", refuse)
    with StepProfiler(tmp_path, first_step=0, num_steps=3) as profiler:
        run_steps(profiler, 5)


def test_a_trace_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "profile").write_text("a file where the folder should be")
    messages: list[str] = []
    with StepProfiler(tmp_path, first_step=2, num_steps=2, notify=messages.append) as profiler:
        run_steps(profiler, 8)
    assert len(messages) == 1 and messages[0].startswith(
        "No profile, training continues: FileExistsError"
    )


def test_a_profiler_that_does_not_start_is_reported(tmp_path, monkeypatch):
    def broken(**options):
        raise RuntimeError("another profiler is active\nand details")

    monkeypatch.setattr("gnano.train.logging.profiler.profile", broken)
    messages: list[str] = []
    with StepProfiler(tmp_path, first_step=2, num_steps=2, notify=messages.append) as profiler:
        run_steps(profiler, 8)
    assert messages == ["No profile, training continues: RuntimeError: another profiler is active"]
