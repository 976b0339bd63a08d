"""Scaled-out preparation after errors and kills: messages, remains, and the next run."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.data.conftest import some_texts, write_jsonl
from tests.data.prepare.conftest import broken_corpus, documents_read, drafts

from gnano.data.prepare.pipeline import prepare

pytest.importorskip("datatrove", reason="needs datatrove: pip install 'auto-g-nano[scale]'")

from gnano.data.prepare.cluster import ClusterPreparation

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_tasks")]


def test_a_bad_file_is_one_error_and_the_rest_is_done_after_its_correction(
    config, files, corpus, tmp_path, capfd, reference_folder
):
    scaled, path, good = broken_corpus(config, corpus, tmp_path, "two")
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71: it is not JSON") as error:
        ClusterPreparation(scaled, "local", tasks=3, workers=2).run()
    assert "Traceback" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    before = drafts(scaled.folder)
    assert before
    path.write_text(good)
    ClusterPreparation(scaled, "local", tasks=3, workers=2).run()
    assert files(scaled.folder) == files(reference_folder)
    assert documents_read(scaled.folder, number=2)[0] == 9 - len(before)


KILLED = """
import json, sys
from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data import source_files
from gnano.data.prepare.cluster import ClusterPreparation

if __name__ == "__main__":
    source_files.MIN_TASK_BYTES = 1
    config = json.load(sys.stdin)
    sources = {name: SourceConfig(**source) for name, source in config.pop("sources").items()}
    ClusterPreparation(DataConfig(**config, sources=sources), "local", tasks=2, workers=2).run()
"""


def descendants(process):
    """Return the ids of all child processes of a process."""
    found, parents = [], [process]
    while parents:
        children = Path(f"/proc/{parents.pop()}/task").glob("*/children")
        found += (new := [int(n) for path in children for n in path.read_text().split()])
        parents += new
    return found


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_process_and_its_drafts_are_reused(config, files, tmp_path):
    many = tmp_path / "many"
    for name in ("a", "b"):
        for n in range(4):
            write_jsonl(many / name / f"{n}.jsonl", some_texts("abcdefgh", 800, seed=(name, n)))
    one, two = config("one", many), config("two", many)
    with subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(two)).encode())
        process.stdin.close()
        wait_until(lambda: drafts(two.folder) or process.poll() is not None)
        children = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -9, "it was over before it could be killed"
    assert len(children) >= 2
    wait_until(lambda: not any(map(alive, children)))
    before = drafts(two.folder)
    assert 1 <= len(before) < 8
    ClusterPreparation(two, "local", tasks=2, workers=2).run()
    prepare(one)
    assert files(two.folder) == files(one.folder)
    assert documents_read(two.folder, number=2)[0] == 8 - len(before)


def test_a_killed_rank_is_reported(config, files, reference_folder):
    import multiprocess

    def kill_one():
        wait_until(multiprocess.active_children)
        multiprocess.active_children()[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(ValueError, match=r"ranks ended before their work was done.*memory"):
        ClusterPreparation(config("two"), "local", tasks=1).run()
    killer.join()
    ClusterPreparation(config("two"), "local", tasks=1).run()
    assert files(config("two").folder) == files(reference_folder)
