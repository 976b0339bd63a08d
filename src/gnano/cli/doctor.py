"""The command `gnano doctor`: checks a machine, and tests what it computes."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from gnano.utils.files import atomic_write_text, check_output_path, dump_json
from gnano.utils.terminal import StatusLine, echo


def doctor(
    quick: bool = False, device: str = "auto", runs: Path = Path("runs"), out: Path | None = None
) -> int:
    """Check this machine and test what it computes; exit code 1 if there is a problem.

    Works with and without a GPU. Each line is ok, a note (slower, or may fail later), a problem, or
    unknown (could not be checked), with what to do. The self-test compares a layer, decoding and
    short training runs with a CPU, kills a run and resumes it.

    command examples:
      gnano doctor                          some minutes, with compilation
      gnano doctor --quick                  about a minute
      gnano doctor --runs /mnt/disk/runs    measure the disk of that folder
      gnano doctor --device cpu --out report.json

    Args:
        quick: Leave compilation and other slow tests out.
        device: Device of the self-test: cpu, cuda, cuda:1, mps; auto is a CUDA GPU if there is one.
        runs: Folder for runs, whose disk is measured.
        out: Also write the results to this JSON file.
    """
    from gnano.doctor.diagnosis import format_summary, run_checks

    if out:
        check_output_path(out, "--out")
    checks = []
    with closing(StatusLine()) as line:
        for check in run_checks(device, runs, quick, line.update):
            line.clear()
            echo(str(check))
            checks.append(check)
    echo(f"\n{format_summary(checks)}")
    if out:
        atomic_write_text(out, dump_json({"checks": list(map(asdict, checks))}, indent=1))
    return int(any(check.status == "problem" for check in checks))
