"""The list of runs shows the status of each, even if it or another one is damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from tests.processes import start, wait_for_step
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.reporting.run_status import (
    RunStatus,
    format_age,
    format_runs_json,
    format_runs_table,
    list_runs,
    read_run_status,
)

LOCK_HOLDER = """
import fcntl, json, os, sys, time

with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(json.dumps({"pid": os.getpid(), "host": "here"}), file=file, flush=True)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def make_run(tmp_path, recipe):
    """A function that writes a run as the trainer does: `make_run("name", rows, events)`."""
    plain = recipe

    def write(name: str = "demo", rows=(), events=(), age=0.0, recipe=plain) -> Path:
        run: Path = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.toml").write_text(tomli_w.dumps(asdict(recipe)))  # of 40 steps
        for log, lines in (("metrics.jsonl", rows), ("events.jsonl", events)):
            (run / log).write_text("".join(json.dumps(line) + "\n" for line in lines))
        for file in run.iterdir():
            os.utime(file, (time.time() - age,) * 2)
        return run

    return write


def row(step, loss=5.0, bits=None, **more):
    heldout = {} if bits is None else {"heldout": {"bits_per_byte": bits, "sources": {}}}
    return {"step": step, "loss": loss, "seconds": step * 0.5, **heldout, **more}


def event(kind, step=0, **more):
    return {"time": "2026-11-25T00:15:06Z", "event": kind, "step": step, **more}


STARTED = event("started", pid=1, host="here", ranks=1, steps=40)
SAVED = event("saved", 10, folder="step-00000010")


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ([STARTED, SAVED, event("finished", 40)], "finished", ""),
        ([STARTED, SAVED, event("stopped", 10, signal="SIGTERM")], "stopped", "SIGTERM"),
        ([STARTED, event("failed", 7, reason="No space.")], "failed", "No space."),
        ([STARTED, SAVED], "failed", "killed?"),
        ([STARTED, event("stopped", 4, signal="SIGINT"), STARTED], "failed", "killed?"),
        ([STARTED, event("finished", 40), STARTED, event("stopped", 44)], "stopped", ""),
        ([STARTED, event("finished", 40), SAVED], "finished", ""),
        ([STARTED, event("finished", 40), event("failed", reason="refused")], "finished", ""),
        ([event("failed", reason="No room.")], "failed", "No room."),
    ],
)
def test_the_state_is_how_the_last_start_ended(make_run, events, state, reason):
    found = read_run_status(make_run(rows=[row(1)], events=events))
    assert (found.state, found.reason) == (state, reason)


def test_a_run_is_running_while_its_process_lives(make_run):
    run = make_run(events=[STARTED])
    program = [sys.executable, "-c", LOCK_HOLDER, run / "run.lock"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        found = read_run_status(run)
        assert found.state == "running" and str(process.pid) in found.reason
    finally:
        process.kill()
        process.communicate()
    assert (read_run_status(run).state, read_run_status(run).reason) == ("failed", "killed?")


def test_a_run_without_events_is_finished_by_its_final_row(make_run):
    run = make_run(rows=[row(40, final=True)])
    (run / "events.jsonl").unlink()
    assert read_run_status(run).state == "finished"


def test_values_are_the_last_ones_of_the_log(make_run):
    rows = [row(1, 6.0), row(2, 5.5, bits=2.5), row(3, 5.1), row(4, None, skipped=True)]
    found = read_run_status(make_run(rows=rows))
    assert (found.step, found.steps) == (4, 40)
    assert (found.loss, found.bits_per_byte) == (5.1, 2.5)


def test_rolled_back_steps_do_not_count(make_run):
    rows = [row(1, 6.0), row(2, 5.9, bits=2.5), row(8, 4.0, bits=2.0), row(2, 5.8), row(3, 5.7)]
    found = read_run_status(make_run(rows=rows))
    assert (found.step, found.loss, found.bits_per_byte) == (3, 5.7, 2.5)


def test_runs_are_listed_two_levels_deep_last_active_first(make_run, tmp_path):
    make_run("old", age=3 * 86_400)
    make_run("group/new", age=5)
    make_run("middle", age=7_300)
    make_run("too/deep/to/see")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "a file").write_text("")
    folder = tmp_path / "runs"
    runs = list_runs(folder)
    assert [str(run.folder.relative_to(folder)) for run in runs] == ["group/new", "middle", "old"]
    lines = format_runs_table(folder, runs).splitlines()
    assert [line.split()[0] for line in lines] == ["run", "group/new", "middle", "old"]
    assert lines[2].endswith(" 2 h") and lines[3].endswith(" 3 d")


def test_the_folder_of_a_run_lists_that_run(make_run):
    run = make_run("single", rows=[row(10)])
    table = format_runs_table(run, list_runs(run))
    assert "single" in table and "10/40  25%" in table


@pytest.mark.parametrize("name", ["recipe.toml", "metrics.jsonl", "events.jsonl"])
@pytest.mark.parametrize("damage", ["noise", "folder", "torn"])
def test_unreadable_files_of_one_run_do_not_hide_the_others(make_run, name, damage):
    intact = make_run("intact", [row(3)], [STARTED, event("finished", 3)])
    damaged_run = make_run("damaged_run", [row(4)], [STARTED, event("finished", 4)])
    file = damaged_run / name
    content = file.read_bytes()
    file.unlink()
    match damage:
        case "noise":
            file.write_bytes(bytes(range(256)) * 300)
        case "folder":
            file.mkdir()
        case "torn":
            file.write_bytes(content[:9])
    runs = {run.folder: run for run in list_runs(intact.parent)}
    assert (runs[intact].state, runs[intact].step, runs[intact].problems) == ("finished", 3, [])
    if (name, damage) == ("recipe.toml", "folder"):
        assert damaged_run not in runs  # a folder of that name makes no run
        return
    assert any(name in problem for problem in runs[damaged_run].problems)
    assert name in format_runs_table(intact.parent, list(runs.values()))


def test_a_damaged_checkpoint_is_named_and_skipped(make_run):
    run = make_run(rows=[row(20)])
    for step in (10, 20):
        folder = run / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"1234")
        (folder / "files.json").write_text('{"model.safetensors": [4, "0"]}')
    assert read_run_status(run).checkpoint == folder and read_run_status(run).problems == []
    os.truncate(folder / "model.safetensors", 3)
    found = read_run_status(run)
    assert found.checkpoint == run / "checkpoints" / "step-00000010"
    assert any(str(folder / "model.safetensors") in problem for problem in found.problems)
    shutil.rmtree(run / "checkpoints")
    assert read_run_status(run).checkpoint is None


def test_json_has_the_same_values(make_run, tmp_path):
    make_run("a", [row(4, 5.1, bits=2.5)], [STARTED, event("failed", 4, reason="No space.")])
    make_run("b", age=60)
    folder = tmp_path / "runs"
    first, second = map(json.loads, format_runs_json(folder, list_runs(folder)).splitlines())
    assert {k: first[k] for k in ("name", "state", "reason", "step", "steps")} == {
        "name": "a", "state": "failed", "reason": "No space.", "step": 4, "steps": 40,
    }  # fmt: skip
    assert (first["loss"], first["bits_per_byte"], second["name"]) == (5.1, 2.5, "b")
    assert second["step"] is None and second["loss"] is None


TASKS = {
    "hellaswag": {"items": 500, "acc": 0.262, "acc_norm": 0.284, "error": 0.0201},
    "lambada": {"items": 500, "acc": 0.1, "error": 0.0134},
}


@pytest.fixture
def recipe_with_tasks(recipe):
    """A recipe with tasks."""
    return with_train(recipe, eval_tasks=("hellaswag", "lambada"))


def test_json_has_the_last_values_of_each_task(make_run, recipe_with_tasks, tmp_path):
    older = {name: {**found, "acc": 0.01} for name, found in TASKS.items()}
    redone = {name: {**found, "acc": 0.99} for name, found in TASKS.items()}
    rows = [row(2, tasks=older), row(3, tasks=TASKS), row(9, tasks=redone), row(4), row(5)]
    make_run("a", rows, recipe=recipe_with_tasks)
    make_run("b", [row(1)], recipe=recipe_with_tasks, age=60)
    make_run("c", [row(1)], age=90)
    folder = tmp_path / "runs"
    first, *others = map(json.loads, format_runs_json(folder, list_runs(folder)).splitlines())
    assert first["tasks"] == TASKS
    assert [run["tasks"] for run in others] == [{}, {}]


def test_the_table_of_runs_has_no_tasks(make_run, recipe_with_tasks, tmp_path):
    folder = tmp_path / "runs"
    make_run("a", [row(3, tasks=TASKS)], recipe=recipe_with_tasks)
    with_tasks = format_runs_table(folder, list_runs(folder))
    (folder / "a" / "metrics.jsonl").write_text(json.dumps(row(3)) + "\n")
    assert with_tasks == format_runs_table(folder, list_runs(folder))


def test_damaged_tasks_are_ignored(make_run, recipe_with_tasks, damaged):
    rows = [row(2, tasks=TASKS), row(3, bits=2.5, tasks=damaged)]
    found = read_run_status(make_run(rows=rows, recipe=recipe_with_tasks))
    assert (found.step, found.bits_per_byte, found.tasks) == (3, 2.5, TASKS)
    mixed = {**TASKS, "piqa": None}
    run = make_run("mixed", [row(2, tasks=mixed)], recipe=recipe_with_tasks)
    assert read_run_status(run).tasks == TASKS
    (run / "recipe.toml").write_text("torn")
    assert read_run_status(run).tasks == TASKS


def test_a_reason_cannot_control_the_terminal(make_run, tmp_path):
    make_run("a\x1b[2Jb", events=[STARTED, event("failed", reason="\x1b[31mred\nand\tmore")])
    text = format_runs_table(tmp_path / "runs", list_runs(tmp_path / "runs"))
    assert "\x1b" not in text and "red and more" in text and len(text.splitlines()) == 3


def test_an_age_is_one_number_with_a_unit():
    seconds = (-5, 0, 59.4, 61, 3_599, 7_300, 86_400 * 5 + 1)
    assert [*map(format_age, seconds)] == ["0 s", "0 s", "59 s", "1 min", "59 min", "2 h", "5 d"]


def test_an_empty_folder_has_no_runs_and_a_missing_one_is_an_error(tmp_path):
    assert "holds no run" in format_runs_table(tmp_path, list_runs(tmp_path))
    assert format_runs_json(tmp_path, list_runs(tmp_path)) == ""
    with pytest.raises(FileNotFoundError, match="no folder"):
        list_runs(tmp_path / "nowhere")


@pytest.mark.slow
def test_status_follows_a_run_through_kill_and_stop(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "real"
    run.parent.mkdir()
    long = with_train(recipe, steps=4_000, save_every=5)
    process = start(long, run)
    try:
        wait_for_step(run, 12, process)
        found = _only_run(run)
        assert found.state == "running" and str(process.pid) in found.reason
        assert found.step is not None and found.step >= 12 and found.steps == 4_000
        assert found.checkpoint is not None and found.loss is not None
    finally:
        process.kill()
        process.communicate()
    killed = _only_run(run)
    assert (killed.state, killed.reason) == ("failed", "killed?")

    process = start(long, run)
    assert killed.step is not None
    wait_for_step(run, killed.step + 1, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    stopped = _only_run(run)
    assert (stopped.state, stopped.reason) == ("stopped", "SIGTERM")
    assert stopped.checkpoint is not None and stopped.problems == []


def _only_run(run: Path) -> RunStatus:
    [found] = list_runs(run.parent)
    return found
