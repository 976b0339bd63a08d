"""Trackers get every metric, and a tracker that fails never ends the run."""

import importlib
import json
import math
import os
import struct
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from gnano.train.logging import trackers
from gnano.train.logging.trackers import Trackers

slow = pytest.mark.slow
RECIPE = {"model": {"n_layer": 2}, "train": {"steps": 40, "trackers": ["wandb"]}}


def step_metrics(step, shift=0.0):
    return {
        "step": step,
        "tokens": step * 512,
        "loss": 6.0 / step + shift,
        "grad_norm": 1.5,
        "lr": 1e-3,
        "tokens_per_s": 1000.0,
        "mfu": None,
        "final": step == 40,
    }


def evaluated_metrics(step):
    heldout = {"bits_per_byte": 2.5, "sources": {"web": 2.0, "code": 3.0}}
    return step_metrics(step) | {"heldout": heldout}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Make W&B write everything to the run's folder, without network access."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "elsewhere").mkdir()
    for place in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME", "TMPDIR"):
        monkeypatch.setenv(place, str(tmp_path / "elsewhere"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


LIBRARY = """
import os, pathlib, time
class init:
    def __init__(self, dir, **settings):
        self.folder = pathlib.Path(dir); {init}
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def log(self, metrics, step):
        {log}
Settings = dict
"""


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Return a function that replaces W&B by one that runs a statement at its start or per step."""

    def put(init="pass", log="pass"):
        folder = tmp_path / "library"
        folder.mkdir()
        (folder / "wandb.py").write_text(LIBRARY.format(init=init, log=log))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return put


def log_steps(run, names, steps, row=None):
    """Send steps to trackers, wait until they are done, and return the messages."""
    messages: list[str] = []
    logger = Trackers(names, run, RECIPE, messages.append)
    for step in steps:
        logger.log((row or step_metrics)(step))
    logger.close(timeout=100)
    return messages


def curves(run):
    """Return what TensorBoard shows, read by its own reader: name -> {step: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    names = reader.Tags()["scalars"]
    return {name: {e.step: e.value for e in reader.Scalars(name)} for name in names}


def wandb_runs(run):
    """Return what W&B stored for upload: (id, config, history) of each start of the run.

    W&B keeps its records in a LevelDB log: after 7 bytes of header, each has 4 bytes of checksum, 2
    of length and 1 of kind (1: complete; tests are too small for others).
    """
    record_type = importlib.import_module("wandb.proto.wandb_internal_pb2").Record

    parts = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        data, at, run_id = path.read_bytes(), 7, ""
        config: dict[str, object] = {}
        rows: list[dict[str, object]] = []
        while at < len(data):
            length, kind = struct.unpack_from("<HB", data, at + 4)
            assert kind == 1
            record = record_type.FromString(data[at + 7 : at + 7 + length])
            at += 7 + length
            if record.HasField("run"):
                run_id = record.run.run_id
                config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
            if record.HasField("history"):
                items = record.history.item
                rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in items})
        parts.append((run_id, config, rows))
    return parts


@slow
def test_tensorboard_shows_every_metric_of_every_step(tmp_path):
    tasks = {
        "hellaswag": {"items": 500, "acc": 0.25, "acc_norm": 0.5, "error": 0.125},
        "mine/own": {"items": 9, "acc": 0.75, "note": "short"},
    }

    def row(step):
        if step == 40:
            return evaluated_metrics(40)
        return step_metrics(step) | ({"tasks": tasks} if step == 38 else {})

    assert log_steps(tmp_path, ["tensorboard"], range(1, 41), row) == []
    shown = curves(tmp_path)
    assert list(shown["loss"]) == list(range(1, 41))
    assert math.isclose(shown["loss"][7], 6 / 7, rel_tol=1e-6)
    assert {name: points for name, points in shown.items() if name.startswith("tasks/")} == {
        "tasks/hellaswag/items": {38: 500},
        "tasks/hellaswag/acc": {38: 0.25},
        "tasks/hellaswag/acc_norm": {38: 0.5},
        "tasks/hellaswag/error": {38: 0.125},
        "tasks/mine/own/items": {38: 9},
        "tasks/mine/own/acc": {38: 0.75},
    }
    assert shown["heldout/code"] == {40: 3.0}
    assert {name for name in shown if not name.startswith("tasks/")} == {
        *("tokens", "loss", "grad_norm", "lr", "tokens_per_s"),
        *("heldout/bits_per_byte", "heldout/web", "heldout/code"),
    }


@slow
def test_tensorboard_shows_repeated_steps_once(tmp_path):
    log_steps(tmp_path, ["tensorboard"], range(1, 31))
    time.sleep(1.1)  # file names differ by the second
    log_steps(tmp_path, ["tensorboard"], range(21, 41), lambda n: step_metrics(n, shift=0.5))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    events = reader.Scalars("loss")
    assert [event.step for event in events] == list(range(1, 41))
    assert math.isclose(events[24].value, 6 / 25 + 0.5, rel_tol=1e-6)


@slow
def test_wandb_gets_every_metric_and_the_recipe_and_resumes_the_same_run(tmp_path, offline):
    for steps in (range(1, 4), range(3, 6)):
        messages = log_steps(
            tmp_path,
            ["wandb"],
            steps,
            lambda step: evaluated_metrics(2) if step == 2 else step_metrics(step),
        )
        assert messages == []
    first, second = wandb_runs(tmp_path)
    run_id, config, rows = first
    assert run_id == second[0] == (tmp_path / "wandb-id").read_text().strip()
    assert config["model"] == {"n_layer": 2}
    assert [row["_step"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss"] == 6.0 and rows[1]["heldout/web"] == 2.0
    assert [row["_step"] for row in second[2]] == [3, 4, 5]


@slow
def test_wandb_without_a_login_is_reported_once(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    messages = log_steps(tmp_path, ["wandb", "tensorboard"], range(1, 6))
    assert len(messages) == 1 and messages[0].startswith("wandb stopped, training continues: ")
    assert list(curves(tmp_path)["loss"]) == [1, 2, 3, 4, 5]


def test_a_tracker_that_is_not_installed_is_refused():
    with pytest.raises(ValueError, match=r"'no_such', .* pip install 'auto-g-nano\[track\]"):
        trackers.check_trackers_installed(["no_such"])


def test_a_folder_named_wandb_is_not_taken_for_the_library(tmp_path):
    (tmp_path / "wandb").mkdir()
    code = (
        "import importlib.util, sys\n"
        "from gnano.train.logging.trackers import check_trackers_installed\n"
        "sys.path = [p for p in sys.path if 'site-packages' not in p]; sys.meta_path.reverse()\n"
        "check_trackers_installed(['wandb'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "names 'wandb', which is not installed" in ran.stderr


def test_a_tracker_that_raises_is_dropped_with_its_reason(tmp_path, library):
    library(init="raise RuntimeError('the server messages no\\nand much more')")
    (sentence,) = log_steps(tmp_path, ["wandb"], range(1, 100))
    reason = "wandb stopped, training continues: RuntimeError: the server messages no"
    assert sentence.startswith(reason) and "much more" not in sentence


def test_a_tracker_that_dies_is_dropped_while_training(tmp_path, library):
    library(log="step == 3 and os._exit(7)")
    messages: list[str] = []
    with closing(Trackers(["wandb"], tmp_path, RECIPE, messages.append)) as logger:
        step = 0
        while not messages and step < 3_000:
            step += 1
            logger.log(step_metrics(step))
            time.sleep(0.01)
    assert messages[0].startswith("wandb stopped, training continues: it ended with exit code 7")
    assert len(messages) == 1


def test_a_tracker_that_hangs_is_killed_at_the_end(tmp_path, library):
    library(init="(self.folder / 'pid').write_text(str(os.getpid())); time.sleep(1_000)")
    messages: list[str] = []
    logger = Trackers(["wandb"], tmp_path, RECIPE, messages.append)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    for step in range(1, 1_000):
        logger.log(step_metrics(step))
    logger.close(timeout=0.5)
    assert messages == ["wandb did not finish in time and was ended; metrics.jsonl has every step."]
    assert ends_soon(int((tmp_path / "pid").read_text()))


def test_a_slow_tracker_misses_steps_which_is_reported_once(tmp_path, library, monkeypatch):
    monkeypatch.setattr(trackers, "MAX_PENDING_ROWS", 4)
    library(log="while not (self.folder / 'go').exists(): time.sleep(0.05)")
    messages: list[str] = []
    with closing(Trackers(["wandb"], tmp_path, RECIPE, messages.append)) as logger:
        for step in range(1, 5_000):  # more than queue and pipe take
            logger.log(step_metrics(step) | {"padding": "x" * 500})
        assert messages == ["wandb cannot keep up and misses steps; metrics.jsonl has them all."]
        (tmp_path / "go").touch()
    assert len(messages) == 2 and messages[1].startswith("wandb misses 4,")


def test_an_unwritable_folder_stops_the_trackers_but_not_the_run(offline):
    unwritable = Path("/proc/sys/kernel")
    if not unwritable.is_dir():
        pytest.skip("there is no unwritable folder")
    messages = log_steps(unwritable, ["tensorboard", "wandb"], range(1, 6))
    assert sorted(sentence.split()[0] for sentence in messages) == ["tensorboard", "wandb"]
    assert all("stopped, training continues" in sentence for sentence in messages)


def test_the_output_of_a_library_goes_to_a_log_file(tmp_path, library, capfd):
    library(init="print('noise')", log="print('more', step)")
    assert log_steps(tmp_path, ["wandb"], [1]) == []
    assert (tmp_path / "wandb.log").read_text() == "noise\nmore 1\n"
    assert capfd.readouterr() == ("", "")


def test_after_a_kill_the_curves_are_written_and_the_process_ends(tmp_path):
    code = textwrap.dedent(f"""
        import os, pathlib, signal, time
        from gnano.train.logging.trackers import Trackers
        logger = Trackers(["tensorboard"], pathlib.Path({str(tmp_path)!r}), {{}}, print)
        for step in range(1, 6):
            logger.log({{"step": step, "loss": 1.0 / step}})
        (tracker,) = logger.trackers
        while not tracker.rows.empty():
            time.sleep(0.01)
        print(tracker.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == -9, ran.stderr
    assert ends_soon(int(ran.stdout))
    assert len(curves(tmp_path)["loss"]) >= 4  # the last may not have arrived


def ends_soon(pid, seconds=20):
    for _ in range(seconds * 10):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False
