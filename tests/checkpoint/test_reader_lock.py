"""A checkpoint that is read is not removed meanwhile; one that is gone is not what is read."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.checkpoint.fake_checkpoint import made

from gnano.checkpoint import format
from gnano.checkpoint.checksums import CHECKSUMS_FILE
from gnano.checkpoint.format import checkpoint_step, find_checkpoint, list_checkpoints
from gnano.checkpoint.manager import apply_retention

READER = """
import sys
from pathlib import Path
from gnano.checkpoint.format import find_checkpoint
print(find_checkpoint(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def steps(run: Path) -> list[int]:
    return [checkpoint_step(folder) for folder in list_checkpoints(run)]


def more(run: Path, step: int) -> None:
    made(run, {step: None})
    (run / "checkpoints" / f"step-{step:08}" / CHECKSUMS_FILE).write_text("{}")


@pytest.mark.parametrize("named", ["run", "checkpoint"])
def test_retention_leaves_what_another_process_reads_until_that_ends(
    tmp_path: Path, named: str
) -> None:
    more(tmp_path, 10)
    first = list_checkpoints(tmp_path)[0]
    (first / "config.json").write_text("{}")
    path = tmp_path if named == "run" else first
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout and reader.stdout.readline().strip() == str(first)
    for step in (20, 30):
        more(tmp_path, step)
        apply_retention(tmp_path, keep_last=1)
    assert steps(tmp_path) == [10, 30]
    reader.communicate("")
    apply_retention(tmp_path, keep_last=1)
    assert steps(tmp_path) == [30]


def test_a_checkpoint_that_goes_between_two_looks_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more(tmp_path, 10)
    more(tmp_path, 20)
    gone, here = list_checkpoints(tmp_path)
    shutil.rmtree(gone)
    looks = [[gone], [here]]
    monkeypatch.setattr(format, "list_checkpoints", lambda run: looks.pop(0))
    assert find_checkpoint(tmp_path) == here and not looks
