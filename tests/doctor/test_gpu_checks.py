"""GPU checks on a machine that is described by a fake driver and a fake nvidia-smi."""

from types import SimpleNamespace

import pytest
import torch

from gnano.doctor import gpu_checks
from gnano.doctor.gpu_checks import check_clocks, gpu_parts, parse_topology

# printed by nvidia-smi of a machine with two pairs of GPUs; the header is underlined
TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tNV12\tSYS\tSYS\tPXB\t0-31\t0
GPU1\tNV12\t X \tSYS\tSYS\tNODE\t0-31\t0
GPU2\tSYS\tSYS\t X \tNV12\tSYS\t32-63\t1
GPU3\tSYS\tSYS\tNV12\t X \tSYS\t32-63\t1
NIC0\tPXB\tNODE\tSYS\tSYS\t X

Legend:

  X    = Self
"""
PROC_TEXTS = {
    "old": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15\n",
    "new": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
    "other": "NVRM version: none\n",
}


def clocks(**changes):
    row = {
        "clocks.sm": "1980",
        "clocks.max.sm": "1980",
        "power.limit": "700.00",
        "power.default_limit": "700.00",
        "clocks_event_reasons.active": "0x0000000000000001",  # idle
    }
    return check_clocks("GPU 0 clocks", row | changes)


def test_a_gpu_that_is_slowed_down_is_not_ok():
    assert clocks().status == "ok"
    hot = clocks(**{"clocks_event_reasons.active": "0x0000000000000060", "clocks.sm": "345"})
    assert hot.status == "note" and "345 of 1980 MHz" in hot.found and hot.found.endswith("by heat")
    limited = clocks(**{"power.limit": "500.00"})
    assert limited.status == "note" and "500.00 of 700.00 W" in limited.found
    assert clocks(**{"power.limit": "[N/A]"}).status == "unknown"


def test_pairs_without_nvlink_are_found():
    expected = {(a, b): {a, b} in ({0, 1}, {2, 3}) for b in range(4) for a in range(b)}
    assert parse_topology(TOPOLOGY) == expected
    with pytest.raises(OSError, match="lists no pair"):
        parse_topology("No devices were found\n")


@pytest.mark.parametrize(
    ("driver", "cuda", "status"),
    [
        ("new", "13.0", "ok"),
        ("old", "13.0", "problem"),
        ("old", "12.8", "ok"),
        ("old", None, "ok"),
        ("other", "13.0", "unknown"),
    ],
)
def test_a_driver_that_is_too_old_for_the_build_is_a_problem(
    driver, cuda, status, tmp_path, monkeypatch
):
    file = tmp_path / "version"
    file.write_text(PROC_TEXTS[driver])
    monkeypatch.setattr(gpu_checks, "NVIDIA_DRIVER", file)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    name, check_driver = gpu_parts()[0]
    [check] = check_driver()
    assert (name, check.status) == ("NVIDIA driver", status)
    assert bool(check.advice) == (status == "problem")


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, of which the second has little free memory."""
    fakes = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": lambda index: SimpleNamespace(
            name="NVIDIA H200", uuid=f"aa-{index}", major=9, minor=0
        ),
        "mem_get_info": lambda index: ((149e9, 20e9)[index], 150e9),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    [part] = [part for name, part in gpu_parts() if name == "GPUs"]
    return part


def test_without_nvidia_smi_clocks_are_unknown_and_not_ok(gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in gpus()}
    assert checks["GPU 0"].status == "ok" and "capability 9.0" in checks["GPU 0"].found
    assert checks["GPU 1"].status == "note" and "nvidia-smi" in checks["GPU 1"].advice
    for number in range(2):
        found = checks[f"GPU {number} clocks"]
        assert found.status == "unknown" and "nvidia-smi is not installed" in found.found


# an older driver, which does not know the newer name of the reasons
FAKE_SMI = """#!/bin/sh
case "$1" in
  --query-compute-apps*) echo "GPU-aa-0, 4711";;
  *clocks_event*) echo 'Field "clocks_event_reasons.active" is not valid.'; exit 2;;
  --query-gpu*)
    echo "GPU-aa-0, 1980, 1980, 700.00, 700.00, 0x0000000000000000"
    echo "GPU-aa-1, 990, 1980, 700.00, 700.00, 0x0000000000000008";;
  *) echo "nvidia-smi: driver not loaded" >&2; exit 9;;
esac
"""


def test_other_processes_and_clocks_are_read_by_gpu(gpus, monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(FAKE_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = [(check.name, check.status) for check in gpus()]
    assert found == [
        ("GPU 0", "note"),  # process 4711
        ("GPU 0 clocks", "ok"),
        ("GPU 1", "note"),  # memory
        ("GPU 1 clocks", "note"),
    ]
    with pytest.raises(OSError, match="driver not loaded"):
        gpu_checks.run_smi("topo", "-m")
