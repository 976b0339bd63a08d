"""Errors and kills of worker processes are reported, and no finished work is lost."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.conftest import numbered, parts
from tests.processes import start_prepare, write_recipe

from gnano.data.prepare.pipeline import prepare
from gnano.data.prepare.worker_pool import (
    WorkerEvent,
    WorkerPool,
    raise_event_error,
    serialize_error,
)


@pytest.fixture
def config(make, small_tasks):
    """Four tasks for two workers."""
    return make(a=parts(numbered(0, 400), 4), shard_tokens=1_000, workers=2, max_bad_share=0)


@pytest.fixture
def reference_files(config, tree):
    full = replace(config, folder=config.folder + "-complete", workers=1)
    prepare(full)
    return tree(full.folder)


def break_line(config, number):
    """Break line 21 of one of the files; return its path and its original content."""
    path = sorted(Path(config.sources["a"].files[0]).iterdir())[number]
    good = path.read_text()
    lines = good.splitlines(keepends=True)
    lines[20] = lines[20].replace('"text": ', '"text" ')
    path.write_text("".join(lines))
    return path, good


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_record_is_reported_and_the_rest_is_done_after_its_correction(
    config, reference_files, tree, workers
):
    config = replace(config, workers=workers)
    path, good = break_line(config, 2)
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 21: it is not JSON")):
        prepare(config)
    path.write_text(good)
    prepare(config)
    assert tree(config.folder) == reference_files


@pytest.mark.slow
def test_a_bad_record_ends_the_command_with_one_error(config, tmp_path):
    path, _ = break_line(config, 1)
    process = start_prepare(config, tmp_path / "broken.toml")
    output = process.communicate()[0].decode()
    assert process.returncode == 2
    messages = [line for line in output.splitlines() if line.startswith("gnano: ")]
    assert len(messages) == 1 and f"{path}, line 21: it is not JSON" in messages[0]
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at work", "before its job"])
def test_a_killed_worker_is_reported_and_the_next_run_resumes(
    config, reference_files, tree, monkeypatch, when
):
    submit = WorkerPool.submit

    def submit_and_kill(self, job):
        if job.task == 3 and when == "before its job":
            self.idle[-1].kill()
            self.idle[-1].wait()
        submit(self, job)
        if job.task == 3 and when == "at work":
            self.busy[job.source, job.task].kill()

    with monkeypatch.context() as patch:
        patch.setattr(WorkerPool, "submit", submit_and_kill)
        with pytest.raises(ValueError, match=r"worker was killed in task 3 of source 'a'") as error:
            prepare(config)
    assert "--data.workers" in str(error.value)
    prepare(config)
    assert tree(config.folder) == reference_files


def test_no_worker_is_left_after_a_failure(config, monkeypatch):
    started = []
    start = WorkerPool._start_process

    def recording_start(self, config):
        started.append(start(self, config))
        return started[-1]

    monkeypatch.setattr(WorkerPool, "_start_process", recording_start)
    break_line(config, 0)
    with pytest.raises(ValueError, match="not JSON"):
        prepare(config)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_an_internal_error_in_a_worker_process_has_a_traceback(config, tmp_path, monkeypatch):
    """The worker process has a broken function."""
    (tmp_path / "sitecustomize.py").write_text(
        "from gnano.data import manifest\nmanifest.text_position = lambda text: {}['nowhere']\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match=r"task \d of source 'a'") as error:
        prepare(config)
    assert "Traceback" in str(error.value) and "KeyError: 'nowhere'" in str(error.value)


def test_an_internal_error_in_this_process_has_a_traceback(config, monkeypatch):
    monkeypatch.setattr(
        "gnano.data.prepare.worker_pool.text_position", lambda text: {"here": 1}["nowhere"]
    )
    with pytest.raises(RuntimeError, match="KeyError: 'nowhere'"):
        prepare(replace(config, workers=1))


def test_a_full_disk_in_a_worker_raises_the_same_error(config, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/somewhere/000.keys")

    monkeypatch.setattr("gnano.data.prepare.worker_pool.atomic_write_bytes", full)
    with pytest.raises(OSError, match="No space") as error:
        prepare(replace(config, workers=1))
    assert (error.value.errno, error.value.filename) == (28, "/somewhere/000.keys")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("a sentence."), ValueError("data.sources.a: a sentence.")),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), None),
        (FileNotFoundError("a sentence."), ValueError("data.sources.a: a sentence.")),
        (EOFError("it is empty"), None),
        (PermissionError(13, "Permission denied", "/a"), PermissionError(13, "Permission denied")),
    ],
)
def test_errors_cross_the_pipe_unchanged_and_name_their_source(raised, expected):
    with pytest.raises((ValueError, OSError, RuntimeError)) as error:
        raise_event_error(
            WorkerEvent(kind="failed", source="a", task=1, error=serialize_error(raised))
        )
    if expected is not None:
        assert type(error.value) is type(expected)
        assert error.value.args[:2] == expected.args
    assert str(raised) in str(error.value)


def test_a_worker_ignores_output_of_libraries(config, reference_files, tree, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "from gnano.data import manifest\n"
        "position = manifest.text_position\n"
        "def noisy(text):\n    print('{not an event')\n    return position(text)\n"
        "manifest.text_position = noisy\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    prepare(config)
    assert tree(config.folder) == reference_files


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_its_workers(config, tmp_path):
    """Ctrl-C reaches the complete process group, as in a terminal."""
    program = (
        "import os, signal, sys\n"
        "from gnano.cli import main\n"
        "from gnano.data import source_files\n"
        "from gnano.data.prepare.worker_pool import WorkerPool\n"
        "source_files.MIN_TASK_BYTES = 1\n"
        "submit = WorkerPool.submit\n"
        "def interrupting(self, job):\n"
        "    submit(self, job)\n"
        "    if job.task == 2:\n"
        "        print(*[p.pid for p in self.busy.values()], flush=True)\n"
        "        os.killpg(0, signal.SIGINT)\n"
        "WorkerPool.submit = interrupting\n"
        "main(sys.argv[1:])\n"
    )
    file = write_recipe(config, tmp_path / "stopped.toml")
    done = subprocess.run(
        [sys.executable, "-c", program, "prepare", str(file)],
        capture_output=True,
        text=True,
        process_group=0,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "Stopped. Finished work is kept" in done.stderr
    assert "Traceback" not in done.stderr
    for pid in map(int, done.stdout.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
