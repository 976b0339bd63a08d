"""Checks of NVIDIA GPUs: driver, memory, other processes, clocks, and how they are connected."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import torch
import torch.distributed

from gnano.doctor.check import Check, Part
from gnano.utils.formatting import format_gb
from gnano.utils.platform_support import NVIDIA_DRIVER

MIN_DRIVERS = {11: 450, 12: 525, 13: 580}  # by CUDA's major version; NVIDIA's release notes
MIN_FREE_SHARE = 0.9
CLOCK_FIELDS = ("uuid", "clocks.sm", "clocks.max.sm", "power.limit", "power.default_limit")
# drivers from 535 on have the first name
REASON_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# bits of nvml.h; the others, such as an idle GPU, are harmless
SLOWDOWNS = {0x08: "its hardware", 0x20: "heat", 0x40: "heat", 0x80: "its power supply"}


def gpu_parts() -> list[Part]:
    """Return the checks of the GPUs: none on a machine without one."""
    parts: list[Part] = []
    if NVIDIA_DRIVER.exists():
        parts.append(("NVIDIA driver", _check_driver))
    if torch.cuda.is_available():
        parts.append(("GPUs", _check_gpus))
    if torch.cuda.device_count() > 1:
        parts.append(("connections of GPUs", _check_connections))
    return parts


def _check_driver() -> Iterator[Check]:
    found = re.search(r"\s(\d{3,})\.\d[\d.]*\s", NVIDIA_DRIVER.read_text("utf-8"))
    if found is None:
        yield Check("NVIDIA driver", "unknown", f"{NVIDIA_DRIVER} does not state its version")
        return
    cuda = torch.version.cuda or "0"  # 0: PyTorch uses no driver
    needed = MIN_DRIVERS.get(int(cuda.split(".")[0]), 0)
    text = found[0].strip() + (f", and CUDA {cuda} needs {needed} or later" if needed else "")
    advice = f"Update it, or install a PyTorch that was built for an older CUDA than {cuda}."
    yield Check.ok_unless(int(found[1]) < needed, "NVIDIA driver", text, advice, "problem")


def run_smi(*arguments: str) -> str:
    """Return what nvidia-smi prints; raises OSError with its message, or where it is missing."""
    command = ["nvidia-smi", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=60, check=False
        )
    except FileNotFoundError:
        raise OSError("nvidia-smi is not installed") from None
    if done.returncode:
        raise OSError(f"nvidia-smi: {(done.stdout or done.stderr).strip().splitlines()[:1]}")
    return done.stdout


def _query_smi(what: str, *fields: str) -> list[dict[str, str]]:
    text = run_smi(f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits")
    return [dict(zip(fields, line.split(", "), strict=True)) for line in text.splitlines() if line]


def _query_clocks() -> list[dict[str, str]]:
    new, old = REASON_FIELDS
    try:
        return _query_smi("gpu", *CLOCK_FIELDS, new)
    except OSError:
        return _query_smi("gpu", *CLOCK_FIELDS, old)


def _check_gpus() -> Iterator[Check]:
    users: Counter[str] = Counter()
    clocks: dict[str, dict[str, str]] = {}
    reason = "nvidia-smi does not list it"
    try:  # before this process uses a GPU
        users.update(row["gpu_uuid"] for row in _query_smi("compute-apps", "gpu_uuid", "pid"))
        clocks = {row["uuid"]: row for row in _query_clocks()}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        uuid = f"GPU-{gpu.uuid}"
        found = (
            f"{gpu.name}, {format_gb(free, '.1f')} of {format_gb(total, '.1f')} free, "
            f"compute capability {gpu.major}.{gpu.minor}"
        )
        shared = users[uuid] or free < MIN_FREE_SHARE * total
        advice = "Another process uses it (nvidia-smi lists them): end it, or share its speed."
        yield Check.ok_unless(shared, f"GPU {index}", found, advice)
        name = f"GPU {index} clocks"
        row = clocks.get(uuid)
        yield check_clocks(name, row) if row else Check(name, "unknown", f"not read: {reason}")


def check_clocks(name: str, row: dict[str, str]) -> Check:
    """Return whether something slows the GPU down, from nvidia-smi's values by field."""
    limit, default = row["power.limit"], row["power.default_limit"]
    found = f"{row['clocks.sm']} of {row['clocks.max.sm']} MHz, power limit {limit} of {default} W"
    reasons = next(row[field] for field in REASON_FIELDS if field in row)
    try:
        bits, is_limited = int(reasons, 16), float(limit) < float(default)
    except ValueError:  # [N/A]
        return Check(name, "unknown", f"{found}, slowed down by: {reasons}")
    if causes := list(dict.fromkeys(text for bit, text in SLOWDOWNS.items() if bits & bit)):
        advice = "Check its cooling and power, or rent another machine."
        return Check(name, "note", f"{found}, slowed down by {' and '.join(causes)}", advice)
    advice = "The power limit costs speed: raise it with nvidia-smi -pl."
    return Check.ok_unless(is_limited, name, found, advice)


def _check_connections() -> Iterator[Check]:
    has_nccl = torch.distributed.is_nccl_available()
    number = torch.cuda.nccl.version() if has_nccl else ()  # type: ignore[no-untyped-call]
    nccl = ".".join(map(str, number)) or "missing in this PyTorch"
    advice = "Install another build of PyTorch, for training on several GPUs."
    yield Check.ok_unless(not has_nccl, "NCCL", nccl, advice, "problem")
    access = torch.cuda.can_device_access_peer
    without, damaged = [], []
    for a, b in combinations(range(torch.cuda.device_count()), 2):
        if not (access(a, b) and access(b, a)):
            without.append(f"{a}–{b}")
        sent = torch.arange(2**20, device=f"cuda:{a}")
        if not torch.equal(sent.to(f"cuda:{b}").cpu(), sent.cpu()):
            damaged.append(f"{a}–{b}")
    found = f"none between {', '.join(without)}" if without else "between all GPUs"
    advice = "They exchange through host memory, more slowly; if that hangs: NCCL_P2P_DISABLE=1."
    yield Check.ok_unless(without, "peer access", found, advice)
    found = f"changed between {', '.join(damaged)}" if damaged else "arrive unchanged"
    advice = "Set NCCL_P2P_DISABLE=1, or disable the IOMMU in the firmware."
    yield Check.ok_unless(damaged, "copies between GPUs", found, advice, "problem")
    links = parse_topology(run_smi("topo", "-m"))
    slow = [f"{a}–{b}" for (a, b), is_nvlink in links.items() if not is_nvlink]
    found = f"PCIe between {', '.join(slow)}" if slow else "NVLink"
    advice = 'Choose train.parallel = "ddp", which exchanges less than "fsdp".'
    yield Check.ok_unless(slow, "links between GPUs", found, advice)


def parse_topology(text: str) -> dict[tuple[int, int], bool]:
    """Return for each pair of GPUs whether it has NVLink, from what `nvidia-smi topo -m` prints.

    Raises OSError if it lists no pair.
    """
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    links = {}
    for row in lines:
        if row and (gpu := re.fullmatch(r"GPU(\d+)", row[0])) and "X" in row:
            first = int(gpu[1])
            for second, cell in enumerate(row[1 : first + 1]):
                links[second, first] = cell.startswith("NV")
    if not links:
        raise OSError("nvidia-smi topo -m lists no pair of GPUs")
    return links
