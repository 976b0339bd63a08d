"""The manifest and the task markers are read as written, or refused by name."""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis.strategies import (
    builds,
    dictionaries,
    floats,
    integers,
    just,
    lists,
    none,
    one_of,
    text,
    tuples,
)

from gnano.config.data_config import MAX_BAD_SHARE
from gnano.data.manifest import (
    Manifest,
    ShardPlan,
    SourceInfo,
    SourcePlan,
    TaskInfo,
    count_bad_records,
    read_marker,
    write_marker,
)
from gnano.data.prepare.pipeline import prepare
from gnano.data.shards import ShardInfo
from gnano.data.source_files import InputFile

counts = integers(0, 2**40)
words = text("abc-01", min_size=1, max_size=8)
shard_infos = builds(
    ShardInfo,
    name=words,
    tokens=counts,
    documents=counts,
    bytes=counts,
    sha256_tokens=words,
    sha256_docs=words,
)
task_infos = builds(
    TaskInfo,
    shards=lists(shard_infos, max_size=3),
    heldout=one_of(none(), shard_infos),
    read=counts,
    dropped=dictionaries(words, counts, max_size=2),
    lengths=lists(counts, min_size=32, max_size=32),
    bad=lists(tuples(counts, counts, text()), max_size=2),
)
input_files = builds(InputFile, name=text(), size=counts, fingerprint=words)
source_plans = builds(
    SourcePlan,
    **dict.fromkeys(("repo", "config", "split", "revision", "commit", "column"), text(max_size=8)),
    **dict.fromkeys(("max_tokens", "max_bytes", "min_chars", "max_chars"), counts),
    kind=words,
    tasks=lists(lists(input_files, max_size=2).map(tuple), max_size=3).map(tuple),
)
plans = builds(
    ShardPlan,
    tokenizer=words,
    decontaminate=lists(input_files, max_size=2).map(tuple),
    heldout=just(0.1),
    shard_tokens=counts,
    sources=dictionaries(words, source_plans, min_size=1, max_size=3),
)
manifests = builds(
    Manifest,
    plan=plans,
    tokenizer=builds(lambda w, n: {"name": w, "fingerprint": w, "vocab_size": n}, words, counts),
    weights=dictionaries(words, counts.map(float)),
    max_bad_share=floats(0, 1),
    skipped=dictionaries(words, lists(text(), max_size=2), max_size=2),
    sources=dictionaries(
        words, builds(SourceInfo, tasks=lists(task_infos, max_size=2)), max_size=3
    ),
    complete=just(True),
)


@settings(deadline=None, max_examples=30)
@given(manifest=manifests)
def test_a_manifest_is_read_as_it_was_written(manifest):
    with TemporaryDirectory() as folder:
        manifest.save(Path(folder))
        loaded = Manifest.load(Path(folder))
    assert loaded == manifest
    assert list(loaded.sources) == list(manifest.sources)
    assert list(loaded.plan.sources) == list(manifest.plan.sources)
    assert loaded.fingerprint == manifest.fingerprint


@settings(deadline=None, max_examples=30)
@given(info=task_infos, task=integers(0, 99_999))
def test_a_marker_is_read_as_it_was_written(info, task):
    with TemporaryDirectory() as folder:
        assert read_marker(Path(folder), task) is None
        write_marker(Path(folder), task, info)
        assert read_marker(Path(folder), task) == info


@pytest.fixture
def damaged(mix, tmp_path):
    """damaged(edit) -> a folder with the manifest of `mix` after `edit(its content)`."""

    def write(edit):
        content = json.loads((mix.folder / "manifest.json").read_text())
        edited = edit(content)
        text = edited if isinstance(edited, str) else json.dumps(edited)
        (tmp_path / "manifest.json").write_text(text)
        return tmp_path

    return write


def changed(*path, to):
    """An edit that puts `to` in this place of the content."""

    def edit(content):
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        assert inner[path[-1]] != to
        inner[path[-1]] = to
        return content

    return edit


def without(*path):
    def edit(content):
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return content

    return edit


TASK = ("sources", "a", "tasks", 0)
SHARD = (*TASK, "shards", 0)
PLAN = ("plan", "sources", "b")

EDITS = {
    "tokens": changed(*SHARD, "tokens", to=5),
    "documents": changed(*SHARD, "documents", to=5),
    "bytes": changed(*SHARD, "bytes", to=5),
    "checksum": changed(*SHARD, "sha256_tokens", to="0" * 64),
    "checksum of starts": changed(*SHARD, "sha256_docs", to="0" * 64),
    "shard name": changed(*SHARD, "name", to="../b/00000-000"),
    "count as text": changed(*SHARD, "tokens", to="many"),
    "counted repeats": changed(*TASK, "dropped", "repeated", to=5),
    "documents read": changed(*TASK, "read", to=5),
    "weights": changed("weights", "a", to=99.0),
    "not complete": changed("complete", to=False),
    "held-out share": changed("plan", "heldout", to=0.2),
    "a file's size": changed(*PLAN, "tasks", 0, 0, 1, to=5),
    "fingerprint": changed("fingerprint", to="0" * 64),
    "tokenizer": changed("tokenizer", "fingerprint", to="0" * 64),
    "shard left out": without(*SHARD),
    "source left out": without("sources", "b"),
    "planned source left out": without(*PLAN),
    "other format": changed("format", to=1),
    "no format": without("format"),
    "no plan": without("plan"),
    "no fingerprint": without("fingerprint"),
    "no complete": without("complete"),
    "no heldout": without(*TASK, "heldout"),
    "no counts": without(*TASK, "dropped"),
    "no checksum": without(*SHARD, "sha256_tokens"),
    "no checksum of itself": without("sha256"),
    "unknown key": changed(*SHARD, to={"what": 1}),
    "sources a list": changed("sources", to=[]),
    "source null": changed("sources", "a", to=None),
    "tasks text": changed("sources", "a", "tasks", to="all"),
    "tokenizer text": changed("tokenizer", to="gpt2"),
    "a list": lambda content: [content],
    "a number": lambda content: 1,
    "empty": lambda content: "",
    "truncated": lambda content: json.dumps(content)[:-20],
    "not JSON": lambda content: "format = 1",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_refused_by_name(damaged, edit):
    folder = damaged(EDITS[edit])
    with pytest.raises(ValueError, match=re.escape(str(folder / "manifest.json"))) as error:
        Manifest.load(folder)
    assert "prepare another folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unedited_manifest_is_read(damaged):
    assert Manifest.load(damaged(lambda content: content)).complete


def test_a_manifest_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "manifest.json"))):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"5", b"{}", b'{"shards": 3}', b'{"shards": [], "hel', b"\xff\x00"]
)
def test_a_damaged_marker_is_refused_by_name(tmp_path, content):
    (tmp_path / "00003.json").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "00003.json"))) as error:
        read_marker(tmp_path, 3)
    assert "delete it and run the same `gnano prepare` again" in str(error.value)


def test_an_unprepared_folder_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="gnano prepare") as error:
        Manifest.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_full_disk_keeps_the_old_manifest(mix, tmp_path, monkeypatch):
    manifest = Manifest.load(mix.folder)
    manifest.save(tmp_path)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = replace(manifest, weights={"a": 1.0})
    with pytest.raises(OSError, match="No space"):
        other.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest


def test_a_manifest_without_bad_record_counts_is_read(make):
    folder = Path(prepare_and_forget(make(a=["x", "y"], heldout=0)))
    manifest = Manifest.load(folder)
    assert (manifest.max_bad_share, manifest.skipped) == (MAX_BAD_SHARE, {})
    assert manifest.sources["a"].tasks[0].bad == []
    bad = count_bad_records(manifest.plan.sources["a"], manifest.sources["a"].tasks)
    assert bad.format_summary() == ""


def prepare_and_forget(config):
    """A finished folder, its manifest as it was before bad records were counted."""
    prepare(config)
    path = Path(config.folder, "manifest.json")
    content = json.loads(path.read_text())
    for key in ("max_bad_share", "skipped", "sha256"):
        del content[key]
    (task,) = content["sources"]["a"]["tasks"]
    del task["bad"], task["dropped"]["bad"], task["dropped"]["empty"]
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": checksum}))
    return config.folder
