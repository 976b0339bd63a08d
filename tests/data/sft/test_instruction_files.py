"""Records of the Hub are downloaded once; later runs need no network."""

import json
from pathlib import Path

import pytest
from tests.data.hf_hub.hub_server import Hub, point_client_to

from gnano.config.data_config import InstructionConfig, InstructionSource
from gnano.data.sft.record_loading import load_conversations
from gnano.data.source_files import resolve_source_files

DOLLY = InstructionSource(kind="hub", repo="databricks/databricks-dolly-15k")


def records(count):
    return [
        {"instruction": f"Name {n}", "context": "", "response": f"It is {n}.", "category": "naming"}
        for n in range(count)
    ]


def jsonl(count):
    return "".join(json.dumps(record) + "\n" for record in records(count)).encode()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with Hub() as served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        served.add(DOLLY.repo, {"README.md": b"#", "databricks-dolly-15k.jsonl": jsonl(50)})
        yield served


def test_a_data_set_is_downloaded_once(hub, tmp_path):
    messages: list[str] = []
    paths = resolve_source_files(DOLLY, tmp_path / "hub", messages.append)
    assert Path(paths[0]).read_bytes() == jsonl(50)
    assert messages and "databricks-dolly-15k.jsonl" in messages[0]
    request_count = len(hub.requests)
    hub.add(DOLLY.repo, {"databricks-dolly-15k.jsonl": jsonl(60)})  # a newer commit
    assert resolve_source_files(DOLLY, tmp_path / "hub") == paths
    assert len(hub.requests) == request_count


def test_a_damaged_file_is_downloaded_again(hub, tmp_path):
    (path,) = resolve_source_files(DOLLY, tmp_path / "hub")
    Path(path).write_bytes(b"{}")
    (again,) = resolve_source_files(DOLLY, tmp_path / "hub")
    assert Path(again).read_bytes() == jsonl(50)


def test_a_damaged_listing_and_a_missing_data_set_are_refused(hub, tmp_path):
    resolve_source_files(DOLLY, tmp_path / "hub")
    (note,) = (tmp_path / "hub").glob("*/*.json")
    note.write_text('{"commit": ')
    with pytest.raises(ValueError, match=r"train-main.json is damaged.*delete it"):
        resolve_source_files(DOLLY, tmp_path / "hub")
    nowhere = InstructionSource(kind="hub", repo="no/where")
    with pytest.raises((ValueError, OSError), match="no/where"):
        resolve_source_files(nowhere, tmp_path / "hub")


def test_each_split_or_folder_has_its_own_listing(hub, tmp_path):
    hub.add("me/two", {"en/train.jsonl": jsonl(3), "en/test.jsonl": jsonl(2)})
    for split, count in (("train", 3), ("test", 2)):
        source = InstructionSource(kind="hub", repo="me/two", config="en", split=split)
        (path,) = resolve_source_files(source, tmp_path / "hub")
        assert Path(path).read_bytes() == jsonl(count)
        assert resolve_source_files(source, tmp_path / "hub") == [path]


def test_records_of_the_hub_are_split_like_local_ones(hub, tmp_path):
    local = tmp_path / "local.jsonl"
    local.write_bytes(jsonl(50))
    here = InstructionConfig(
        heldout_fraction=0.3, sources={"d": InstructionSource(files=(str(local),))}
    )
    there = InstructionConfig(
        heldout_fraction=0.3, cache_dir=str(tmp_path / "hub"), sources={"d": DOLLY}
    )
    assert load_conversations(there) == load_conversations(here)
