"""Only one process prepares a folder at a time."""

import re
import subprocess
import sys

import pytest
from tests.data.conftest import numbered

from gnano.data.prepare.pipeline import prepare
from gnano.utils.files import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from gnano.utils.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_cannot_prepare_the_same_folder(make):
    config = make(a=numbered(0, 20))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, config.folder], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=re.escape(f"running in {config.folder}")) as error:
            prepare(config)
        assert "--data.folder" in str(error.value) and "\n" not in str(error.value)
        process.kill()
        process.wait()
        assert prepare(config).complete  # the kernel released the lock of the killed process


def test_a_folder_cannot_be_locked_twice_in_one_process(tmp_path):
    refused = pytest.raises(ValueError, match="Another `gnano prepare`")
    with lock_folder(tmp_path), refused, lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_a_failed_preparation_releases_the_lock(make):
    config = make(a=[""])
    for _ in range(2):
        with pytest.raises(ValueError, match="no training text"):
            prepare(config)


def test_different_folders_can_be_prepared_at_the_same_time(make, tmp_path):
    with lock_folder(tmp_path / "other"):
        assert prepare(make(a=numbered(0, 20))).complete
