"""Preparation gives the same bytes with any workers, after kills and after lost files."""

import os
import random
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.conftest import numbered, parts, some_texts
from tests.processes import children, start_prepare, wait_for_end

from gnano.config.data_config import SourceConfig
from gnano.data.manifest import Manifest, marker_path
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")


@pytest.fixture
def make_config(make, small_tasks):
    """make_config(folder, …): configure three sources of several tasks, with many duplicates."""
    rng = random.Random(2)
    common = some_texts("xyz", 40)

    def files(letters, count):
        texts = some_texts(letters, 150) + rng.sample(common, 25)
        rng.shuffle(texts)
        return parts(texts, count)

    content = {"a": files("abcdefgh", 5), "b": files("ijklmnop", 3), "c": files("qrstuvwx", 1)}
    return lambda folder, **more: make(folder, shard_tokens=2_000, **content, **more)


@pytest.fixture(scope="module")
def reference_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reference") / "data"


@pytest.fixture
def reference_files(make_config, tree, reference_folder):
    """The files of an uninterrupted preparation in the folder "uninterrupted"."""
    folder = make_config("uninterrupted").folder
    if reference_folder.exists():
        shutil.copytree(reference_folder, folder)
    else:
        prepare(make_config("uninterrupted"))
        shutil.copytree(folder, reference_folder)
    return tree(folder)


def identities(folder):
    """Return the inode and time of each file, which change if a file is written again."""
    files = [path for path in folder.rglob("*") if path.suffix in (".tokens", ".docs")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_byte(make_config, reference_files, tree, workers):
    config = make_config("again", workers=workers)
    prepare(config)
    files = tree(config.folder)
    assert {"manifest.json", "tokenizer.json", "a/00004-000.tokens"} <= set(files)
    assert files == reference_files
    # nothing but shards, keys, tokenizer and manifest is left
    assert not [name for name in files if "partial" in name or name.startswith(".")]


def test_preparing_a_complete_folder_again_changes_nothing(make_config, reference_files, tree):
    config = make_config("uninterrupted")
    before = identities(Path(config.folder))
    assert prepare(config) == Manifest.load(Path(config.folder))
    assert identities(Path(config.folder)) == before
    assert tree(config.folder) == reference_files


def test_every_document_is_in_the_shards_once_and_in_the_plans_order(mix):
    for name in mix.files:
        texts = mix.texts(name)
        trained, heldout = mix.training_documents(name), mix.heldout_documents(name)
        assert trained == [text for text in texts if text not in heldout]
        assert heldout == [text for text in texts if text not in trained]
        assert len(trained) + len(heldout) == len(texts) > 350


@pytest.mark.slow
@linux
def test_a_killed_run_gives_the_same_bytes_and_leaves_no_process(
    make_config, reference_files, tree, tmp_path
):
    config = make_config("killed", workers=2)
    rng = random.Random(3)
    kills = 0
    for _ in range(5):
        process = start_prepare(config, tmp_path / "killed.toml")
        time.sleep(rng.uniform(0.2, 1.0))
        workers = children(process.pid)
        process.kill()
        output = process.communicate()[0].decode()
        wait_for_end(workers)
        if process.returncode == 0:  # it ended before the kill
            assert tree(config.folder) == reference_files
            shutil.rmtree(config.folder)
        else:
            assert process.returncode == -9, output
            kills += 1
    assert kills
    process = start_prepare(config, tmp_path / "killed.toml")
    assert process.wait() == 0, process.communicate()[0].decode()
    assert tree(config.folder) == reference_files


def prepare_until(config, last, steps_file):
    """Prepare in a child process that ends, as by kill -9, at its n-th file operation."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    steps = 0

    def step(event, arguments):
        nonlocal steps
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            steps += config.folder in str(arguments[0])
            if steps == last:
                os.kill(os.getpid(), 9)

    code = 1
    try:
        sys.addaudithook(step)
        prepare(config)
        steps_file.write_text(str(steps))
        code = 0
    finally:
        os._exit(code)


@pytest.mark.slow
def test_a_run_killed_at_any_step_gives_the_same_bytes(
    make_config, reference_files, tree, tmp_path
):
    """Between any two file operations there may be partial files, drafts and manifests."""
    config = make_config("counted")
    assert prepare_until(config, 0, tmp_path / "steps") == 0
    steps = int((tmp_path / "steps").read_text())
    rng = random.Random(4)
    early = rng.sample(range(1, steps - 60), 6)
    for last in sorted([*early, *rng.sample(range(steps - 60, steps + 1), 4)]):
        shutil.rmtree(config.folder)
        assert prepare_until(config, last, tmp_path / "none") == -9
        prepare(config)
        assert tree(config.folder) == reference_files, f"killed at step {last} of {steps}"


LOST = ["a", "a/00003-000.tokens", "b/00001-001.docs", "a/00002-heldout.tokens", "a/00000.keys"]
TRUNCATED = ["a/00001-000.tokens", "c/00000-heldout.docs"]


@pytest.mark.parametrize("lost", [*LOST, *TRUNCATED])
def test_only_deleted_and_truncated_files_are_made_again(make_config, reference_files, tree, lost):
    config = make_config("uninterrupted")
    folder = Path(config.folder)
    before = identities(folder)
    path = folder / lost
    if lost in TRUNCATED:
        path.write_bytes(path.read_bytes()[:-2])
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    prepare(config)
    assert tree(folder) == reference_files
    after = identities(folder)
    source, _, name = lost.partition("/")
    rewritten = {p for p in after if p.parent.name == source and p.name.startswith(name[:5])}
    assert {p for p in after if after[p] != before[p]} == rewritten != set()


def test_files_deleted_on_a_readers_advice_are_made_again(make_config, reference_files, tree):
    """Follow the advice in the message about a damaged shard."""
    config = make_config("uninterrupted")
    path = Path(config.folder, "b", "00001-000.tokens")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    corpus = TokenizedCorpus(Path(config.folder))
    shard = [info.name for info in corpus.shard_infos[1]].index("00001-000")
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        corpus.shard_tokens(1, shard)
    advice = re.search(r"Delete (\S+) in (\S+) and run the same `gnano prepare`", str(error.value))
    assert advice is not None
    deleted = list(Path(advice[2]).glob(advice[1]))
    assert path in deleted
    for each in deleted:
        each.unlink()
    prepare(config)
    assert tree(config.folder) == reference_files


def test_a_deleted_marker_is_made_again(make_config, reference_files, tree):
    """Follow the advice in the message about a damaged marker."""
    config = make_config("uninterrupted")
    folder = Path(config.folder)
    (folder / "b" / "00002-000.tokens").unlink()
    manifest = Manifest.load(folder)
    # an interrupted `prepare` leaves a folder in which that task is not finished
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnano.data.prepare.pipeline._Pipeline.run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    assert not Manifest.load(folder).complete
    assert not marker_path(folder / "b", 2).exists()
    assert marker_path(folder / "a", 0).exists()
    marker_path(folder / "a", 0).unlink()
    assert prepare(config) == manifest
    assert tree(folder) == reference_files


def interrupt(self):
    raise KeyboardInterrupt


def test_a_damaged_manifest_is_refused_and_kept(make_config, reference_files):
    config = make_config("uninterrupted")
    path = Path(config.folder, "manifest.json")
    path.write_text(path.read_text().replace('"read": 7', '"read": 8').replace("0.1", "0.2"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged")) as error:
        prepare(config)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_the_final_status_has_the_counts_of_the_manifest(make):
    seen = []
    config = make(a=numbered(0, 600), b=numbered(700, 720))
    manifest = prepare(config, lambda status: seen.append((str(status), status.counts)))
    text, counts = seen[-1]
    assert "100%" in text and "a  1/1 tasks" in text and "b  1/1 tasks" in text
    for number, column in enumerate(("documents", "bytes", "tokens")):
        sources = manifest.sources.values()
        assert counts[number] == sum(getattr(source, column) for source in sources)


REAL = Path(__file__).parents[4] / "shared/data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "column"),
    [("cosmopedia-v2", "text"), ("fineweb-edu-dedup", "text"), ("starcoderdata", "content")],
)
def test_real_files_of_the_three_sources_are_prepared(make, prepared, place, column):
    """A part of each source, as Parquet like on the Hub."""
    if not (REAL / place).is_dir():
        pytest.skip(f"the real files of {place} are not here")
    config = make(a=["to be replaced"], heldout=0.05)
    source = SourceConfig(
        files=(str(REAL / place / "**/*.parquet"),), column=column, max_tokens=300_000
    )
    done = prepared(replace(config, sources={"real": source}))
    info = Manifest.load(done.folder).sources["real"]
    assert info.tokens >= 300_000
    texts = done.training_documents("real")
    assert len(texts) == info.documents == len(set(texts))
    assert sum(len(text.encode()) for text in texts) == info.bytes
    assert 0 < len(done.heldout_documents("real")) < len(texts)
