"""Checks of the machine itself: what is too small or cannot be written is named."""

import shutil
from pathlib import Path

import pytest
import torch

from gnano.doctor import host_checks
from gnano.doctor.host_checks import host_parts
from gnano.utils import platform_support


def check(part: str, runs: Path = Path("runs")) -> dict[str, tuple[str, str]]:
    """Return status and finding of each check of a part."""
    made = dict(host_parts(torch.device("cpu"), runs, quick=True))[part]()
    return {one.name: (one.status, one.found) for one in made}


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_measured(tmp_path):
    status, found = check("disk", tmp_path / "new/runs")["disk"]
    assert status in ("ok", "note") and found.startswith(f"{tmp_path}: ")
    assert "MB/s" in found and "12.6 GB" in found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that refuses even root")
def test_a_folder_that_cannot_be_written_is_a_problem():
    status, found = check("disk", Path("/proc/runs"))["disk"]
    assert status == "problem" and found.startswith("/proc: ")


def test_too_little_space_for_the_checkpoints_of_1b_is_a_note(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=40 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert check("disk", tmp_path)["disk"][0] == "note"


def test_more_threads_than_a_container_may_use_are_a_note(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(platform_support, "CPU_QUOTA", quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for text, status in ("max 100000\n", "ok"), ("50000 100000\n", "note"):
        quota.write_text(text)
        assert check("cores and memory")["CPU cores"][0] == status


def test_a_gpu_that_the_build_cannot_use_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(platform_support, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check("PyTorch")["PyTorch"][0] == "problem"


def test_a_machine_without_a_compiler_is_slower(monkeypatch):
    reason = "There is no compiler."
    monkeypatch.setattr(host_checks, "compile_unsupported_reason", lambda _: reason)
    assert check("torch.compile")["torch.compile"][0] == "note"
