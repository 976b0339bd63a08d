"""A file without text is refused after reading a little of it."""

import os

import pytest
from tests.data.hf_hub.conftest import lfs
from tests.data.hf_hub.faults import Fault
from tests.data.hf_hub.samples import DOLLY, SMOLLM, STARCODER, jsonl, parquet

from gnano.utils.hf_datasets import check_file, resolve_dataset


@pytest.mark.parametrize(
    ("repo", "config", "column"),
    [
        (SMOLLM, "fineweb-edu-dedup", "text"),
        (SMOLLM, "cosmopedia-v2", "text"),
        (STARCODER, "python", "content"),
        (DOLLY, "", "response"),
    ],
)
def test_the_reference_datasets_pass(hub, monkeypatch, repo, config, column):
    monkeypatch.setenv("HF_TOKEN", "reader")
    commit, files = resolve_dataset(repo, config, "train", "main")
    check_file(repo, commit, files[0], column)
    assert all(r.token == "reader" for r in hub.requests if "/resolve/" in r.path)
    assert hub.requests_for("/storage/"), "the content was not read"


def test_the_check_of_a_large_file_reads_little_of_it(hub):
    noise = [os.urandom(20_000).hex() for _ in range(50)]
    for name, content in {
        "a.parquet": parquet(noise, "cosmopedia-v2"),
        "a.jsonl": jsonl([{"text": "short"}, *({"text": text} for text in noise)]),
        "a.jsonl.gz": b"\x1f\x8b" + bytes(10**6),
    }.items():
        hub.requests.clear()
        commit = hub.add("me/big", {name: content})
        check_file("me/big", commit, lfs(name, content), "text")
        assert sum(r.sent for r in hub.requests) <= 2**16 < len(content) / 10
        assert all(r.range for r in hub.requests_for("/storage/"))


def test_a_long_footer_is_read_completely(hub):
    import io

    import pyarrow
    from pyarrow.parquet import write_table

    out = io.BytesIO()
    table = pyarrow.table({f"a column with a long name {n}": ["x"] * 50 for n in range(300)})
    write_table(table.append_column("text", [["x"] * 50]), out, row_group_size=10)
    content = out.getvalue()
    assert int.from_bytes(content[-8:-4], "little") > 2**16
    check_file(
        "me/wide", hub.add("me/wide", {"a.parquet": content}), lfs("a.parquet", content), "text"
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.parquet",
            parquet(["x"], "starcoderdata"),
            r"a\.parquet has no column 'text'; it has 'max_stars_repo_path', .*'content': name",
        ),
        ("a.parquet", parquet([], "cosmopedia-v2"), "a.parquet has no rows"),
        ("a.parquet", b"not parquet at all", "not a readable Parquet file"),
        ("a.parquet", b"\xff" * 100, "not a readable Parquet file"),
        ("a.parquet", b"", "has no rows: it is empty"),
        ("a.jsonl", b"", "has no rows: it is empty"),
        ("a.jsonl", b"\n \n", "has no rows"),
        ("a.jsonl", jsonl([{"body": "x"}]), "no column 'text'; it has 'body': name"),
        ("a.jsonl", b"[1, 2]\n", "no column 'text'; it has none"),
        ("a.jsonl", jsonl([{"text": 3}]), "has int in 'text', not text"),
        ("a.jsonl", b"{'text'}\n", "does not start with JSON"),
    ],
)
def test_a_file_without_text_is_refused_before_its_download(hub, name, content, sentence):
    commit = hub.add("me/odd", {name: content})
    with pytest.raises(ValueError, match=sentence):
        check_file("me/odd", commit, lfs(name, content), "text")


def test_a_column_of_numbers_or_structures_is_not_text(hub):
    content = parquet(["x"], "fineweb-edu-dedup")
    commit = hub.add("me/odd", {"a.parquet": content})
    with pytest.raises(ValueError, match=r"has struct<.* in 'metadata', not text \(column\)"):
        check_file("me/odd", commit, lfs("a.parquet", content), "metadata")


@pytest.mark.parametrize(
    "content", [b'\xef\xbb\xbf{"text": "x"}', b'\n{"text": null}\n', jsonl([{"text": "x" * 10**5}])]
)
def test_unusual_but_readable_jsonl_passes(hub, content):
    check_file("me/odd", hub.add("me/odd", {"a.jsonl": content}), lfs("a.jsonl", content), "text")
    assert hub.requests_for("/storage/"), "the content was not read"


def test_without_range_requests_the_check_does_not_download(hub):
    commit, files = resolve_dataset(SMOLLM, "cosmopedia-v2", "train", "main")
    hub.faults["/storage/"] = [Fault(ignore_range=True)]
    with pytest.raises(ValueError, match="does not support range requests"):
        check_file(SMOLLM, commit, files[0], "text")


@pytest.mark.parametrize(
    "content", [b'[{"text": "x"}]', b'[\n {"text": "x"}\n]', b'{"text": "x"}\n']
)
def test_json_is_lines_or_a_list(hub, content):
    check_file("me/json", hub.add("me/json", {"a.json": content}), lfs("a.json", content), "text")
