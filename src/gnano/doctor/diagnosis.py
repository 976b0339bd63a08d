"""`gnano doctor`: runs all checks and tests on a machine, and reports each when it is known.

    this machine ─▶ blocks and decoding against a CPU in fp64 ─▶ short training runs ─▶ verdict

A check that cannot be made is "unknown": it is reported, and counts neither as ok nor as a problem.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from gnano.doctor.check import Check, Part, Status
from gnano.doctor.gpu_checks import gpu_parts
from gnano.doctor.host_checks import host_parts
from gnano.doctor.numeric_tests import numeric_parts
from gnano.doctor.trial_runs import BASE, prepare_trial, trial_parts
from gnano.utils.formatting import plural
from gnano.utils.platform_support import resolve_device


def run_checks(
    device_name: str = "auto",
    runs: Path = Path("runs"),
    quick: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Check]:
    """Yield the result of each check; `runs` is the folder whose disk is measured.

    `quick` leaves compilation out. The files of the tests are in a temporary folder, which is
    removed at the end, also where the caller stops early. Raises ValueError for a missing device.
    """
    device = torch.device(resolve_device(device_name))
    yield from _run(host_parts(device, runs, quick) + gpu_parts(), "unknown", on_progress)
    with tempfile.TemporaryDirectory(prefix="gnano-doctor-") as name:
        folder = Path(name)
        parts: list[Part] = [("data of the tests", partial(prepare_trial, folder, str(device)))]
        parts += numeric_parts(device, folder / BASE, quick) + trial_parts(device, folder, quick)
        yield from _run(parts, "problem", on_progress)


def _run(parts: list[Part], failed: Status, on_progress: Callable[[str], None]) -> Iterator[Check]:
    """Yield the results of all parts; one that raises has the status `failed`."""
    for name, part in parts:
        on_progress(f"{name} …")
        try:
            yield from part()
        except Exception as error:  # whatever is broken on this machine
            first, *_ = str(error).strip().splitlines() or ["no message"]
            kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
            yield Check(name, failed, f"{kind}{first}")


def format_summary(checks: list[Check]) -> str:
    """Return the verdict in one line."""
    counts = Counter(check.status for check in checks)
    parts = [f"{counts['ok']} ok", f"{counts['unknown']} unknown"]
    return " · ".join([*parts, *(plural(counts[name], name) for name in ("note", "problem"))])
