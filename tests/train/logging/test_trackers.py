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

RECIPE = {"model": {"n_layer": 2}, "train": {"steps": 40, "trackers": ["wandb"]}}


def figures(step, shift=0.0):
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


def measured(step):
    return figures(step) | {"heldout": {"bits_per_byte": 2.5, "sources": {"web": 2.0, "code": 3.0}}}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """W&B that keeps everything in the run's folder and talks to no one."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "elsewhere").mkdir()
    for place in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME", "TMPDIR"):
        monkeypatch.setenv(place, str(tmp_path / "elsewhere"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Puts a library of our own in the place of the real W&B."""

    def put(code):
        folder = tmp_path / "library"
        folder.mkdir()
        (folder / "wandb.py").write_text(textwrap.dedent(code))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return put


def curves(run):
    """What TensorBoard shows of the run, read by its own reader: name -> {step: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    names = reader.Tags()["scalars"]
    return {name: {e.step: e.value for e in reader.Scalars(name)} for name in names}


def wandb_parts(run):
    """What W&B kept for upload, (id, config, history) of each part of the run.

    Its own records, out of the LevelDB log that they lie in: after 7 bytes of header, each has
    4 bytes of checksum, 2 of length and 1 of kind (1: whole; tests are too small for others).
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


def test_tensorboard_shows_every_figure_of_every_step(tmp_path):
    said: list[str] = []
    with closing(Trackers(["tensorboard"], tmp_path, RECIPE, said.append)) as watch:
        for step in range(1, 40):
            watch.log(figures(step))
        watch.log(measured(40))
    shown = curves(tmp_path)
    assert said == []
    assert set(shown) == {
        *("tokens", "loss", "grad_norm", "lr", "tokens_per_s"),
        *("heldout/bits_per_byte", "heldout/web", "heldout/code"),
    }
    assert list(shown["loss"]) == list(range(1, 41))
    assert math.isclose(shown["loss"][7], 6 / 7, rel_tol=1e-6)
    assert shown["heldout/code"] == {40: 3.0}


def test_tensorboard_shows_each_task_and_passes_over_what_is_no_figure(tmp_path):
    said: list[str] = []
    tasks = {
        "hellaswag": {"items": 500, "acc": 0.25, "acc_norm": 0.5, "error": 0.125},
        "mine/own": {"items": 9, "acc": 0.75, "note": "short"},
        "empty": None,
    }
    with closing(Trackers(["tensorboard"], tmp_path, RECIPE, said.append)) as watch:
        watch.log(figures(1) | {"tasks": None})
        watch.log(figures(2) | {"tasks": tasks})
        watch.log(figures(3) | {"tasks": ["hellaswag"]})
    shown = curves(tmp_path)
    assert said == [] and list(shown["loss"]) == [1, 2, 3]
    assert {name: points for name, points in shown.items() if name.startswith("tasks/")} == {
        "tasks/hellaswag/items": {2: 500},
        "tasks/hellaswag/acc": {2: 0.25},
        "tasks/hellaswag/acc_norm": {2: 0.5},
        "tasks/hellaswag/error": {2: 0.125},
        "tasks/mine/own/items": {2: 9},
        "tasks/mine/own/acc": {2: 0.75},
    }


def test_tensorboard_shows_a_step_once_after_a_run_went_back_to_its_checkpoint(tmp_path):
    with closing(Trackers(["tensorboard"], tmp_path, RECIPE, print)) as watch:
        for step in range(1, 31):
            watch.log(figures(step))
    time.sleep(1.1)  # the files are told apart by the second
    with closing(Trackers(["tensorboard"], tmp_path, RECIPE, print)) as watch:
        for step in range(21, 41):
            watch.log(figures(step, shift=0.5))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    events = reader.Scalars("loss")
    assert [event.step for event in events] == list(range(1, 41))
    assert math.isclose(events[24].value, 6 / 25 + 0.5, rel_tol=1e-6)


def test_wandb_gets_every_figure_and_the_recipe(tmp_path, offline):
    said: list[str] = []
    with closing(Trackers(["wandb"], tmp_path, RECIPE, said.append)) as watch:
        watch.log(figures(1))
        watch.log(measured(2))
    ((_, config, rows),) = wandb_parts(tmp_path)
    assert said == []
    assert [row["_step"] for row in rows] == [1, 2]
    assert rows[0]["loss"] == 6.0 and rows[1]["heldout/web"] == 2.0
    assert config["model"] == {"n_layer": 2}


def test_wandb_goes_on_with_the_same_run(tmp_path, offline):
    for steps in (range(1, 4), range(3, 6)):
        with closing(Trackers(["wandb"], tmp_path, RECIPE, print)) as watch:
            for step in steps:
                watch.log(figures(step))
    first, second = wandb_parts(tmp_path)
    assert first[0] == second[0] == (tmp_path / "wandb-id").read_text().strip()
    assert [row["_step"] for row in second[2]] == [3, 4, 5]


def test_wandb_without_a_login_is_said_once_and_the_run_goes_on(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    said: list[str] = []
    with closing(Trackers(["wandb", "tensorboard"], tmp_path, RECIPE, said.append)) as watch:
        for step in range(1, 6):
            watch.log(figures(step))
    assert len(said) == 1 and said[0].startswith("wandb stopped, the run goes on: ")
    assert list(curves(tmp_path)["loss"]) == [1, 2, 3, 4, 5]


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(
        ValueError, match=r"'no_such_tracker', .* pip install 'auto-g-nano\[track\]"
    ):
        Trackers(["no_such_tracker"], tmp_path, RECIPE, print)


def test_a_folder_called_wandb_is_not_taken_for_the_library(tmp_path):
    (tmp_path / "wandb").mkdir()
    code = (
        "import importlib.util, sys; from gnano.train.logging.trackers import check_installed\n"
        "sys.path = [p for p in sys.path if 'site-packages' not in p]; sys.meta_path.reverse()\n"
        "check_installed(['wandb'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "asks for 'wandb', which is not installed" in ran.stderr


def test_a_tracker_that_raises_is_dropped_with_its_reason(tmp_path, library):
    library("""
        def init(**settings):
            raise RuntimeError("the server said no\\nand much more")
        Settings = dict
    """)
    said: list[str] = []
    with closing(Trackers(["wandb"], tmp_path, RECIPE, said.append)) as watch:
        for step in range(1, 100):
            watch.log(figures(step))
    (sentence,) = said
    reason = "wandb stopped, the run goes on: RuntimeError: the server said no"
    assert sentence.startswith(reason) and "much more" not in sentence


def test_a_tracker_that_dies_in_the_middle_is_dropped_while_training(tmp_path, library):
    library("""
        import os
        class init:
            def __init__(self, **settings): pass
            def __enter__(self): return self
            def __exit__(self, *error): pass
            def log(self, figures, step):
                if step == 3:
                    os._exit(7)
        Settings = dict
    """)
    said: list[str] = []
    with closing(Trackers(["wandb"], tmp_path, RECIPE, said.append)) as watch:
        step = 0
        while not said and step < 3_000:
            step += 1
            watch.log(figures(step))
            time.sleep(0.01)
    assert said[0].startswith("wandb stopped, the run goes on: it ended with exit code 7")
    assert len(said) == 1


def test_a_tracker_that_hangs_is_left_and_its_process_ended(tmp_path, library):
    library("""
        import os, pathlib, time
        def init(dir, **settings):
            pathlib.Path(dir, "pid").write_text(str(os.getpid()))
            while True:
                time.sleep(100)
        Settings = dict
    """)
    said: list[str] = []
    watch = Trackers(["wandb"], tmp_path, RECIPE, said.append)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    for step in range(1, 1_000):
        watch.log(figures(step))
    watch.close(timeout=0.5)
    assert said == ["wandb did not finish in time and was left; metrics.jsonl has every step."]
    assert _ends(int((tmp_path / "pid").read_text()))


def test_a_slow_tracker_loses_steps_and_says_so_once(tmp_path, library, monkeypatch):
    monkeypatch.setattr(trackers, "MAX_PENDING_ROWS", 4)
    library("""
        import pathlib, time
        class init:
            def __init__(self, dir, **settings): self.gate = pathlib.Path(dir, "go")
            def __enter__(self): return self
            def __exit__(self, *error): pass
            def log(self, figures, step):
                while not self.gate.exists():
                    time.sleep(0.05)
        Settings = dict
    """)
    said: list[str] = []
    with closing(Trackers(["wandb"], tmp_path, RECIPE, said.append)) as watch:
        for step in range(1, 5_000):  # more than queue and pipe take
            watch.log(figures(step) | {"padding": "x" * 500})
        assert said == ["wandb cannot keep up: it is missing steps; metrics.jsonl has them all."]
        (tmp_path / "go").touch()
    assert len(said) == 2 and said[1].startswith("wandb is missing 4,")


def test_a_folder_that_takes_no_files_costs_the_curves_and_not_the_run(offline):
    unwritable = Path("/proc/sys/kernel")
    if not unwritable.is_dir():
        pytest.skip("no folder here that nobody can write to")
    said: list[str] = []
    with closing(Trackers(["tensorboard", "wandb"], unwritable, RECIPE, said.append)) as watch:
        for step in range(1, 6):
            watch.log(figures(step))
    assert sorted(sentence.split()[0] for sentence in said) == ["tensorboard", "wandb"]
    assert all("stopped, the run goes on" in sentence for sentence in said)


def test_what_a_library_prints_is_in_a_log_beside_the_run(tmp_path, library, capfd):
    library("""
        class init:
            def __init__(self, **settings): print("noise")
            def __enter__(self): return self
            def __exit__(self, *error): pass
            def log(self, figures, step): print("more", step)
        Settings = dict
    """)
    with closing(Trackers(["wandb"], tmp_path, RECIPE, print)) as watch:
        watch.log(figures(1))
    assert (tmp_path / "wandb.log").read_text() == "noise\nmore 1\n"
    assert capfd.readouterr() == ("", "")


def test_after_a_kill_the_curves_are_written_and_no_process_stays(tmp_path):
    code = textwrap.dedent(f"""
        import os, pathlib, signal
        from gnano.train.logging.trackers import Trackers
        watch = Trackers(["tensorboard"], pathlib.Path({str(tmp_path)!r}), {{}}, print)
        for step in range(1, 6):
            watch.log({{"step": step, "loss": 1.0 / step}})
        (tracker,) = watch.trackers
        while tracker.rows:
            tracker.flush()
        print(tracker.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == -9, ran.stderr
    assert _ends(int(ran.stdout))
    assert len(curves(tmp_path)["loss"]) >= 4  # the last may have been on its way


def _ends(pid, seconds=20):
    for _ in range(seconds * 10):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False
