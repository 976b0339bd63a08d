"""`gnano prepare` from a fake Hub with the real client: downloads, errors and resumption."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from tests.data.hf_hub.faults import Fault, cut, stall, status
from tests.data.hf_hub.hub_server import HIDDEN, Hub, make_impatient, point_client_to
from tests.data.hf_hub.samples import parquet, the_three

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.config.recipe import load_recipe
from gnano.data import source_files
from gnano.data.prepare.pipeline import prepare
from gnano.utils import hf_errors as hub_errors

REAL = Path(__file__).parents[4] / "shared/data"
SMOLLM, STARCODER = "HuggingFaceTB/smollm-corpus", "bigcode/starcoderdata"


def reference(folder: Path, **changes) -> DataConfig:
    """The sources of recipe `1b` without budgets, with a tenth of the documents held out."""
    sources = load_recipe("1b").data.sources
    return DataConfig(
        folder=str(folder),
        tokenizer="gpt2",  # needs no training: nothing is downloaded before the plan is complete
        heldout_fraction=0.1,
        workers=1,
        sources={
            name: SourceConfig(**{**asdict(source), "max_tokens": 0, **changes})
            for name, source in sources.items()
        },
    )


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The three data sets in this process, with one task per file and no waiting."""
    monkeypatch.setattr(hub_errors, "sleep", lambda _: None)
    monkeypatch.setattr(source_files, "MIN_TASK_BYTES", 1)
    with the_three(rows=200, files=3) as served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", "reader")
        yield served


def command(config: DataConfig, hub: Hub, home: Path) -> subprocess.Popen[str]:
    """Start `gnano prepare` in a process whose environment has the Hub's address."""
    recipe = home.with_suffix(".toml")
    recipe.write_text(tomli_w.dumps({"data": asdict(config)}))
    environment = {key: value for key, value in os.environ.items() if key not in HIDDEN}
    environment |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": "reader",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "gnano", "prepare", str(recipe)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_errors_of_the_hub_change_no_byte(hub, tmp_path, monkeypatch):
    prepare(reference(tmp_path / "good"))
    make_impatient(monkeypatch)
    hub.faults["storage"] = [
        status(429, Retry_After="1"),
        status(503),
        cut(1_000),
        stall(2.0, after=2_000),
        cut(0),
    ]
    hub.faults["/tree/"] = [status(500), status(429, Retry_After="1")]
    prepare(reference(tmp_path / "bad"))
    assert not any(hub.faults.values()), "not every fault was met"
    assert hashes(tmp_path / "bad") == hashes(tmp_path / "good")
    assert not (tmp_path / "bad/.downloads").exists()


@pytest.mark.slow
def test_only_the_files_that_a_budget_needs_are_downloaded(hub, tmp_path):
    manifest = prepare(reference(tmp_path / "data", max_tokens=1))
    assert [len(source.tasks) for source in manifest.sources.values()] == [1, 1, 1]
    full = {r.path for r in hub.requests_for("storage") if not r.range}
    assert len(full) == 3


def test_every_source_is_checked_before_the_first_download(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    config = reference(tmp_path / "data", column="body")
    with pytest.raises(ValueError) as raised:
        prepare(config)
    web, synthetic, code = str(raised.value).split("\n")
    assert web.startswith("data.sources.web: ") and "no column 'body'" in web
    assert synthetic.startswith("data.sources.synthetic: ") and "no column 'body'" in synthetic
    assert code.startswith("data.sources.code: ") and f"/datasets/{STARCODER}" in code
    assert all(r.range for r in hub.requests_for("storage")), "a file was downloaded"
    assert not (tmp_path / "data/manifest.json").exists()


def test_a_finished_folder_needs_no_hub(monkeypatch, tmp_path):
    with the_three() as hub:
        point_client_to(hub, monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", "reader")
        first = prepare(reference(tmp_path / "data"))
    assert prepare(reference(tmp_path / "data")).fingerprint == first.fingerprint


@pytest.mark.slow
def test_an_unfinished_folder_keeps_its_commit(hub, tmp_path):
    prepare(reference(tmp_path / "data"))
    checked = {r.path for r in hub.requests_for("storage") if r.range and not r.range.endswith("-")}
    later = next(r.path for r in hub.requests_for("storage") if r.path not in checked)
    hub.faults[later] = [status(403)]
    unfinished = reference(tmp_path / "broken")
    with pytest.raises(ValueError, match="403"):
        prepare(unfinished)
    repository = hub.repositories[SMOLLM]
    repository.revisions |= {"main": "f" * 40, "before": repository.revisions["main"]}
    prepare(unfinished)
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "data")
    assert not hub.requests_for("/tree/" + "f" * 40)


@pytest.mark.slow
def test_a_killed_download_is_resumed(tmp_path):
    rng = random.Random(0)
    texts = [f"document {n} {rng.randbytes(200).hex(' ', 3)}" for n in range(4_000)]
    content = parquet(texts, "cosmopedia-v2")
    hub = Hub(readers={"reader"})
    hub.add("me/books", {"books/train-00000-of-00001.parquet": content})
    source = SourceConfig(kind="hub", repo="me/books", config="books")
    half = len(content) // 2
    with hub:
        config = DataConfig(
            folder=str(tmp_path / "data"), tokenizer="gpt2", sources={"books": source}
        )
        # the first request is the check, which reads the footer; the second, the download, stalls
        hub.faults["storage"] = [Fault(), stall(60, after=half)]
        process = command(config, hub, tmp_path / "home")
        part = tmp_path / "data/.downloads/books/books/train-00000-of-00001.parquet.incomplete"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > half // 2):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        size_before = part.stat().st_size
        hub.requests.clear()
        second = command(config, hub, tmp_path / "home")
        output = second.communicate(timeout=60)[0]
        assert second.returncode == 0, output
        assert [r.range for r in hub.requests_for("storage") if r.range.endswith("-")] == [
            f"bytes={size_before}-"
        ]
    documents = sum(
        len((tmp_path / "data/books" / f"00000-{part}.docs").read_bytes()) // 4
        for part in ("000", "heldout")
    )
    assert documents == len(texts)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real samples in ../shared/data are not here")
def test_columns_from_the_hub_give_the_same_shards_as_local_files(monkeypatch, tmp_path):
    files = REAL / "cosmopedia-v2"
    hub = Hub()
    hub.add(SMOLLM, {f"cosmopedia-v2/{f.name}": f.read_bytes() for f in files.iterdir()})
    source = SourceConfig(kind="hub", repo=SMOLLM, config="cosmopedia-v2", max_tokens=200_000)
    local = SourceConfig(files=(str(files),), max_tokens=200_000)
    with hub:
        point_client_to(hub, monkeypatch, tmp_path / "home")
        for name, one in (("hub", source), ("local", local)):
            prepare(DataConfig(folder=str(tmp_path / name), workers=1, sources={"synthetic": one}))
    shards = [hashes(tmp_path / name / "synthetic") for name in ("hub", "local")]
    assert shards[0] == shards[1] and len(shards[0]) == 5
