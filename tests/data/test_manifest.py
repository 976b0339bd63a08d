import json
import os
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import booleans, builds, dictionaries, integers, lists, text

from gnano.data import Corpus, Manifest
from gnano.data.manifest import SourceInfo
from gnano.data.shards import ShardInfo, ShardWriter

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
source_infos = builds(
    SourceInfo, shards=lists(shard_infos, max_size=3), heldout=shard_infos, duplicates=counts
)
manifests = builds(
    Manifest,
    plan=dictionaries(words, lists(text(max_size=8))),
    tokenizer=builds(lambda w, n: {"name": w, "fingerprint": w, "vocab_size": n}, words, counts),
    sources=dictionaries(words, source_infos, max_size=3),
    complete=booleans(),
)


@settings(deadline=None, max_examples=30)
@given(manifest=manifests)
def test_a_manifest_comes_back_as_it_was_with_its_sources_in_order(manifest):
    with TemporaryDirectory() as folder:
        manifest.save(Path(folder))
        loaded = Manifest.load(Path(folder))
    assert loaded == manifest
    assert list(loaded.sources) == list(manifest.sources)
    assert loaded.fingerprint == manifest.fingerprint


documents = lists(lists(integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=5)


def manifest_of(*sources, tokenizer="t"):
    """Of sources written as shards, each of one document list."""
    infos = {}
    with TemporaryDirectory() as folder:
        for number, shards in enumerate(sources):
            written = []
            for place, shard in enumerate(shards):
                with ShardWriter(Path(folder), f"{place:05}", 10) as writer:
                    for ids in shard:
                        writer.add(ids, len(ids))
                    written.append(writer.finish())
            infos[f"source{number}"] = SourceInfo(shards=written, heldout=written[0], duplicates=0)
    return Manifest(plan={}, tokenizer={"fingerprint": tokenizer}, sources=infos)


@settings(deadline=None, max_examples=30)
@given(one=lists(documents, min_size=1, max_size=2), two=lists(documents, min_size=1, max_size=2))
def test_the_fingerprint_tells_any_two_corpora_apart(one, two):
    assert manifest_of(one).fingerprint == manifest_of(one).fingerprint
    assume(one != two)
    assert manifest_of(one).fingerprint != manifest_of(two).fingerprint


@settings(deadline=None, max_examples=20)
@given(shards=lists(documents, min_size=1, max_size=2), at=integers(0), new=integers(0, 9))
def test_the_fingerprint_changes_with_every_token(shards, at, new):
    before = manifest_of(shards).fingerprint
    ids = [document for shard in shards for document in shard]
    changed = ids[at % len(ids)]
    assume(changed[at % len(changed)] != new)
    changed[at % len(changed)] = new
    assert manifest_of(shards).fingerprint != before


def test_the_fingerprint_changes_with_the_tokenizer_and_the_place_of_a_token():
    one, two = [[[1, 2], [3]]], [[[4]]]
    different = [
        manifest_of(one, two),
        manifest_of(two, one),
        manifest_of(one, two, tokenizer="u"),
        manifest_of([*one, *two]),
        manifest_of([[[1], [2, 3]]], two),  # another document boundary
    ]
    assert len({manifest.fingerprint for manifest in different}) == len(different)


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


SHARD = ("sources", "a", "shards", 0)

EDITS = {
    "tokens": changed(*SHARD, "tokens", to=5),
    "documents": changed(*SHARD, "documents", to=5),
    "bytes": changed(*SHARD, "bytes", to=5),
    "checksum": changed(*SHARD, "sha256_tokens", to="0" * 64),
    "checksum of starts": changed(*SHARD, "sha256_docs", to="0" * 64),
    "shard name": changed(*SHARD, "name", to="../b/00000"),
    "count as text": changed(*SHARD, "tokens", to="many"),
    "fingerprint": changed("fingerprint", to="0" * 64),
    "tokenizer": changed("tokenizer", "fingerprint", to="0" * 64),
    "shard left out": without(*SHARD),
    "source left out": without("sources", "b"),
    "other format": changed("format", to=2),
    "no format": without("format"),
    "no plan": without("plan"),
    "no fingerprint": without("fingerprint"),
    "no complete": without("complete"),
    "no heldout": without("sources", "a", "heldout"),
    "no duplicates": without("sources", "a", "duplicates"),
    "no checksum": without(*SHARD, "sha256_tokens"),
    "unknown key": lambda content: changed(*SHARD, to={"what": 1})(content),
    "sources a list": changed("sources", to=[]),
    "source null": changed("sources", "a", to=None),
    "shards text": changed("sources", "a", "shards", to="all"),
    "tokenizer text": changed("tokenizer", to="gpt2"),
    "a list": lambda content: [content],
    "a number": lambda content: 1,
    "empty": lambda content: "",
    "cut short": lambda content: json.dumps(content)[:-20],
    "not JSON": lambda content: "format = 1",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_refused_by_name(damaged, edit):
    folder = damaged(EDITS[edit])
    with pytest.raises(ValueError, match=re.escape(str(folder / "manifest.json"))) as error:
        Manifest.load(folder)
    assert "prepare it again" in str(error.value)


def test_an_unedited_manifest_is_read(damaged):
    assert Manifest.load(damaged(lambda content: content)).complete


def test_a_manifest_of_other_bytes_than_text_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "manifest.json"))):
        Manifest.load(tmp_path)


def test_a_folder_that_was_never_prepared_says_how_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="gnano prepare") as error:
        Manifest.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_folder_that_is_not_finished_is_not_read(damaged):
    folder = damaged(changed("complete", to=False))
    with pytest.raises(ValueError, match=r"not fully prepared.*gnano prepare"):
        Corpus(folder)


def test_a_disk_that_fills_up_leaves_the_old_manifest(mix, tmp_path, monkeypatch):
    manifest = Manifest.load(mix.folder)
    manifest.save(tmp_path)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = replace(manifest, complete=False)
    with pytest.raises(OSError, match="No space"):
        other.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
