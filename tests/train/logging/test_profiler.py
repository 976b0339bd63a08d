import gzip
import json

import torch

from gnano.train.logging.profiler import StepProfiler


def work():
    a = torch.ones(64, 64, requires_grad=True)
    (a @ a).sum().backward()


def loop(window, steps, began=0):
    for step in range(began + 1, steps + 1):
        window.step(step)
        work()


def trace(path):
    """The trace as any viewer reads it: the names and times of what ran."""
    return [e for e in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] if "dur" in e]


def steps_in(events):
    return [e for e in events if e["name"].startswith("ProfilerStep")]


def test_the_steps_that_were_asked_for_are_in_the_trace_and_no_others(tmp_path):
    said: list[str] = []
    with StepProfiler(tmp_path, first_step=5, num_steps=3, rank=2, notify=said.append) as window:
        loop(window, 20)
    path = tmp_path / "profile/step-00000005-rank2.json.gz"
    events = trace(path)
    assert len(steps_in(events)) == 3
    assert sum(e["name"] == "aten::mm" for e in events) == 3 * 3  # a product and its two gradients
    assert said == [f"Profile: {path}"]


def test_the_table_names_the_costliest_operations(tmp_path):
    with StepProfiler(tmp_path, first_step=2, num_steps=2) as window:
        loop(window, 5)
    table = (tmp_path / "profile/step-00000002-rank0.txt").read_text()
    assert "aten::mm" in table and "Self CPU time total" in table


def test_the_first_step_of_all_can_be_profiled(tmp_path):
    with StepProfiler(tmp_path, first_step=1, num_steps=1) as window:
        loop(window, 3)
    assert len(steps_in(trace(tmp_path / "profile/step-00000001-rank0.json.gz"))) == 1


def test_a_run_that_ends_inside_the_window_leaves_what_it_has(tmp_path):
    with StepProfiler(tmp_path, first_step=4, num_steps=10) as window:
        loop(window, 5)
    assert len(steps_in(trace(tmp_path / "profile/step-00000004-rank0.json.gz"))) == 2


def test_a_run_that_goes_on_in_the_middle_of_the_window_records_the_rest(tmp_path):
    with StepProfiler(tmp_path, first_step=4, num_steps=4) as window:
        loop(window, 12, began=5)
    (path,) = (tmp_path / "profile").glob("*.gz")
    assert path.name == "step-00000006-rank0.json.gz"
    assert len(steps_in(trace(path))) == 2


def test_a_run_past_the_window_is_not_profiled(tmp_path):
    with StepProfiler(tmp_path, first_step=4, num_steps=4) as window:
        loop(window, 12, began=8)
    assert not (tmp_path / "profile").exists()


def test_a_run_without_a_window_never_touches_the_profiler(tmp_path, monkeypatch):
    def refuse(**options):
        raise AssertionError("the profiler was started")

    monkeypatch.setattr("gnano.train.logging.profiler.profile", refuse)
    with StepProfiler(tmp_path, first_step=0, num_steps=3) as window:
        loop(window, 5)


def test_a_trace_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path):
    (tmp_path / "profile").write_text("a file where the folder should be")
    said: list[str] = []
    with StepProfiler(tmp_path, first_step=2, num_steps=2, notify=said.append) as window:
        loop(window, 8)
    assert len(said) == 1 and said[0].startswith("No profile, the run goes on: FileExistsError")


def test_a_profiler_that_does_not_start_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    def broken(**options):
        raise RuntimeError("someone else is profiling\nand details")

    monkeypatch.setattr("gnano.train.logging.profiler.profile", broken)
    said: list[str] = []
    with StepProfiler(tmp_path, first_step=2, num_steps=2, notify=said.append) as window:
        loop(window, 8)
    assert said == ["No profile, the run goes on: RuntimeError: someone else is profiling"]
