"""Short runs in processes of their own: the stored curve, a failure, and what Ctrl-C leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gnano.doctor import trial_runs
from gnano.doctor.trial_runs import LOSSES, prepare_trial, read_losses, run_trial, trial_parts

pytestmark = [pytest.mark.slow, pytest.mark.ranks]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    prepare_trial(folder, "cpu")
    return folder


def test_training_repeats_the_stored_losses_after_a_kill_and_on_two_ranks(folder):
    names = ("training fp32", "kill and resume", "training on 2 ranks, ddp")
    parts = dict(trial_parts(torch.device("cpu"), folder, quick=True))
    for name in names:
        [check] = parts[name]()
        assert (check.name, check.status) == (name, "ok"), check.found
    assert np.abs(read_losses(folder / "fp32") - LOSSES).max() < 1e-4
    events = (folder / "killed/events.jsonl").read_text()
    assert events.count('"started"') == 2 and '"stopped"' not in events


def test_other_numbers_are_a_problem(folder):
    prepared = (folder / "recipe.toml").read_text()
    changed = folder / "changed"
    changed.mkdir()
    (changed / "recipe.toml").write_text(prepared.replace("beta2 = 0.95", "beta2 = 0.9"))
    parts = dict(trial_parts(torch.device("cpu"), changed, quick=True))
    [check] = parts["training fp32"]()
    assert check.status == "problem"


def test_a_run_that_fails_or_hangs_is_reported_with_its_last_words(folder, monkeypatch):
    with pytest.raises(
        OSError, match=r"exit codes \{1\}; ValueError: There is no device 'cuda:99'"
    ):
        run_trial(folder, "failed", device="cuda:99")
    monkeypatch.setattr(trial_runs, "TIMEOUT", 0.5)
    with pytest.raises(OSError, match=r"no end in 0\.5 s"):
        run_trial(folder, "late")


def test_ctrl_c_leaves_neither_files_nor_processes(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "gnano", "doctor", "--quick", "--runs", str(tmp_path)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("gnano-doctor-*/fp32/metrics.jsonl")):  # a run has begun
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    [folder] = tmp_path.glob("gnano-doctor-*")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Stopped." in err
    assert not list(tmp_path.glob("*gnano-doctor-*"))
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(folder) not in listed.stdout
