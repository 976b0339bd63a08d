"""Checks of Python, PyTorch and the compiler, and of a machine's cores, memory and disk."""

import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from gnano.config.model_config import PRESETS
from gnano.doctor.check import Check, Part
from gnano.model.flops import num_parameters
from gnano.utils.files import fsync_path
from gnano.utils.formatting import format_duration, format_gb, plural
from gnano.utils.platform_support import (
    SHARED_MEMORY,
    available_memory_bytes,
    compile_unsupported_reason,
    drop_from_page_cache,
    unused_gpu_reason,
    usable_cores,
)

# of `1b`: weights and AdamW's two averages in fp32
CHECKPOINT_BYTES = 12 * num_parameters(PRESETS["1b"])
MIN_SHARED_BYTES = 2**30  # a container has 64 MB, and NCCL needs more for some GPUs
MIN_OPEN_FILES = 1024
WRITE_BLOCK, WRITE_SECONDS = 2**24, 4.0  # bytes between syncs; time limit for slow disks


def host_parts(device: torch.device, runs: Path, quick: bool) -> list[Part]:
    """Return the checks that every machine gets."""
    return [
        ("PyTorch", _check_software),
        ("torch.compile", partial(_check_compiler, device)),
        ("cores and memory", _check_resources),
        ("disk", partial(_check_disk, runs, 2**26 if quick else 2**28)),
    ]


def _check_software() -> Iterator[Check]:
    yield Check("Python", "ok", f"{platform.python_version()}, {platform.platform(terse=True)}")
    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    built = " ".join(f"{name} {number}" for name, number in builds.items() if number)
    found = f"{torch.__version__}, built for {built or 'the CPU only'}"
    reason = unused_gpu_reason()
    unused = ", does not use this machine's NVIDIA GPU" if reason else ""
    yield Check.ok_unless(reason, "PyTorch", found + unused, reason or "", "problem")


def _check_compiler(device: torch.device) -> Iterator[Check]:
    if reason := compile_unsupported_reason(device):
        found = f"does not work on {device.type}, so steps are slower"
        yield Check("torch.compile", "note", found, reason)
        return
    is_gpu = device.type == "cuda"
    names = [os.environ.get("CC" if is_gpu else "CXX"), *(["cc", "gcc"] if is_gpu else ["g++"])]
    compiler = next((name for name in names if name and shutil.which(name)), "clang")
    triton = f"Triton {version('triton')}, " if is_gpu else ""
    yield Check("torch.compile", "ok", f"{triton}compiler {compiler}")


def _check_resources() -> Iterator[Check]:
    cores, threads = usable_cores(), torch.get_num_threads()
    found = f"{cores:g}, PyTorch uses {plural(threads, 'thread')}"
    advice = f"Set OMP_NUM_THREADS={max(1, int(cores))}: more threads than cores are slower."
    yield Check.ok_unless(threads > cores, "CPU cores", found, advice)
    memory = available_memory_bytes()
    if memory is not None:
        advice = f"A checkpoint of 1b is copied there first: {format_gb(CHECKPOINT_BYTES, '.1f')}."
        found = f"{format_gb(memory, '.1f')} available"
        yield Check.ok_unless(memory < CHECKPOINT_BYTES, "host memory", found, advice)
    if SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total
        advice = "Start the container with --shm-size 8g: NCCL may need it between GPUs."
        yield Check.ok_unless(size < MIN_SHARED_BYTES, str(SHARED_MEMORY), format_gb(size), advice)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,}"
    advice = f"Raise the limit (ulimit -n {MIN_OPEN_FILES}): a server needs one per connection."
    few = limit != resource.RLIM_INFINITY and limit < MIN_OPEN_FILES
    yield Check.ok_unless(few, "open files", found, advice)


def _check_disk(runs: Path, size: int) -> Iterator[Check]:
    """Time synced writes and an uncached read in the folder for runs, or where it will be made."""
    absolute = runs.absolute()
    place = next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    block = os.urandom(WRITE_BLOCK)  # which no file system compresses
    try:
        with tempfile.NamedTemporaryFile("wb", dir=place, prefix=".gnano-doctor-") as file:
            path, done, started = Path(file.name), 0, time.perf_counter()
            while done < size and time.perf_counter() - started < WRITE_SECONDS:
                done += file.write(block)
                file.flush()
                fsync_path(path)
            write = done / (time.perf_counter() - started)
            drop_from_page_cache(path)
            started = time.perf_counter()
            with path.open("rb", buffering=0) as written:
                while written.read(WRITE_BLOCK):
                    pass
            read = done / (time.perf_counter() - started)
    except OSError as error:
        advice = "Choose another folder (--runs, and --out of a run), or free some space."
        yield Check("disk", "problem", f"{place}: {error.strerror}", advice)
        return
    found = (
        f"{place}: {format_gb(free, '.0f')} free, writes {write / 1e6:,.0f} MB/s, reads "
        f"{read / 1e6:,.0f} MB/s: a checkpoint of 1b ({format_gb(CHECKPOINT_BYTES, '.1f')}) is "
        f"written in {format_duration(CHECKPOINT_BYTES / write)}, and verified in "
        f"{format_duration(CHECKPOINT_BYTES / read)}"
    )
    advice = "A run of 1b keeps three checkpoints and writes a fourth: free space for them."
    yield Check.ok_unless(free < 4 * CHECKPOINT_BYTES, "disk", found, advice)
