"""Downloads are complete after any connection error, and transfer no byte twice."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tests.data.hf_hub.conftest import lfs
from tests.data.hf_hub.faults import Fault, cut, stall, wrong
from tests.data.hf_hub.hub_server import make_impatient

from gnano.utils.hf_datasets import HubFile, check_file, download_file, resolve_dataset


def served(hub, content=b"0123456789" * 20_000):
    """Add a dataset of one large file; return its name, commit and file."""
    commit = hub.add("me/big", {"a.jsonl": content})
    return "me/big", commit, lfs("a.jsonl", content)


def test_a_broken_connection_is_resumed(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(70_000), cut(50_000)]
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert [r.range for r in hub.requests_for("storage")] == ["", "bytes=70000-", "bytes=120000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.slow
def test_a_stalled_download_is_resumed(hub, tmp_path, monkeypatch):
    make_impatient(monkeypatch)
    repo, commit, file = served(hub)
    hub.faults["storage"] = [stall(2, after=70_000)]
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert [r.range for r in hub.requests_for("storage")][-1] == "bytes=70000-"


def test_progress_resets_the_number_of_attempts(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(5_000)] * 30
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert len(hub.requests_for("storage")) == 31


def test_without_progress_it_fails_and_the_next_call_resumes(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(70_000)] + [cut(0)] * 30
    with pytest.raises(ConnectionError, match=r"failed 12 times in a row.*continues where it"):
        download_file(repo, commit, file, tmp_path)
    hub.faults.clear()
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert hub.requests_for("storage")[-1].range == "bytes=70000-"


def test_a_server_that_ignores_ranges_is_read_from_the_start(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(70_000), Fault(ignore_range=True)]
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file


def test_a_complete_file_is_not_downloaded_again(hub, tmp_path):
    repo, commit, file = served(hub)
    download_file(repo, commit, file, tmp_path)
    hub.requests.clear()
    assert download_file(repo, commit, file, tmp_path) == tmp_path / "a.jsonl"
    assert not hub.requests


def test_a_complete_partial_file_is_not_downloaded_again(hub, tmp_path):
    repo, commit, file = served(hub)
    (tmp_path / "a.jsonl.incomplete").write_bytes(hub.repositories[repo].files["a.jsonl"])
    download_file(repo, commit, file, tmp_path)
    assert sum(r.sent for r in hub.requests) == 0


@pytest.mark.parametrize("there", [b"another file", b"9" * 300_000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.incomplete"])
def test_leftovers_of_an_older_commit_are_replaced(hub, tmp_path, there, name):
    repo, commit, file = served(hub)
    (tmp_path / name).write_bytes(there)
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file


@pytest.mark.parametrize("content", [b"1" * 200_000, b"short", b"2" * 300_000])
def test_wrong_bytes_are_downloaded_again_once_and_then_refused(hub, tmp_path, content):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [wrong(content)]
    path = download_file(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    path.unlink()
    hub.faults["storage"] = [wrong(content)] * 2
    with pytest.raises(ValueError, match=r"downloaded twice with other bytes .*200,000 bytes"):
        download_file(repo, commit, file, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_small_file_outside_lfs_is_checked_by_its_git_hash(hub, tmp_path):
    commit = hub.add("me/small", {"data/a.ndjson": b'{"text": "x"}\n'})
    _, [file] = resolve_dataset("me/small", "data", "train", "main")
    assert len(file.checksum) == 40
    check_file("me/small", commit, file, "text")
    hub.faults["resolve"] = [wrong(b'{"text": "y"}\n')]
    assert download_file("me/small", commit, file, tmp_path).read_bytes() == b'{"text": "x"}\n'
    assert len(hub.requests_for("resolve")) == 3


def test_an_empty_file_is_downloaded(hub, tmp_path):
    commit = hub.add("me/empty", {"a.jsonl": b""})
    assert download_file("me/empty", commit, lfs("a.jsonl", b""), tmp_path).read_bytes() == b""


@pytest.mark.parametrize("name", ["../a.jsonl", "/a.jsonl", "b/../../a.jsonl"])
def test_a_name_outside_the_folder_is_refused(hub, tmp_path, name):
    with pytest.raises(ValueError, match="would be outside"):
        download_file("me/evil", "main", HubFile(name, 1, ""), tmp_path / "in")
    assert not hub.requests


PROGRAM = """
from pathlib import Path
from gnano.utils.hf_datasets import check_file, download_file, resolve_dataset
commit, [file] = resolve_dataset("me/big", "", "train", "main")
check_file("me/big", commit, file, "text")
download_file("me/big", commit, file, Path("got"))
"""


@pytest.mark.slow
def test_the_next_process_resumes_after_a_kill(hub, tmp_path):
    content = b'{"text": "x"}\n' + b"0123456789" * 30_000
    hub.add("me/big", {"a.jsonl": content})
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    part = tmp_path / "got/a.jsonl.incomplete"
    # the check reads the head first: the second answer of the storage is the download's
    hub.faults["storage"] = [Fault(), stall(30, after=150_000)]
    program = [sys.executable, "-c", PROGRAM]
    first = subprocess.Popen(program, cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 20
        while not part.exists() or part.stat().st_size < 150_000:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    hub.requests.clear()
    subprocess.run(program, cwd=tmp_path, env=environment, check=True, timeout=30)
    assert (tmp_path / "got/a.jsonl").read_bytes() == content
    assert hub.requests_for("storage")[-1].range == "bytes=150000-"
