"""The real client against a small Hub of ours: what a user is told, and that nothing is lost."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
from tests.data.hub.hub_server import (
    Fault,
    Hub,
    cut,
    jsonl,
    parquet,
    point_client_to,
    stall,
    status,
    the_three,
    wrong,
)

from gnano.data.hub import HubFile, check, download, resolve
from gnano.data.hub import errors as hub_errors
from gnano.data.hub.layout import named

SMOLLM, STARCODER = "HuggingFaceTB/smollm-corpus", "bigcode/starcoderdata"
DOLLY = "databricks/databricks-dolly-15k"
PYTHON = "python/train-00000-of-00002.parquet"


@pytest.fixture
def waits(monkeypatch):
    """How long we would have waited between tries."""
    seconds: list[float] = []
    monkeypatch.setattr(hub_errors, "sleep", seconds.append)
    return seconds


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """The three data sets of the reference recipe; no token, no login, impatient."""
    with the_three() as served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        yield served


def lfs(name, content):
    return HubFile(name, len(content), hashlib.sha256(content).hexdigest())


def served(hub, content=b"0123456789" * 20_000):
    """A data set of one large file: its commit, and the file."""
    commit = hub.add("me/big", {"a.jsonl": content})
    return "me/big", commit, lfs("a.jsonl", content)


def names(repo, config="", split="train", revision="main"):
    return [file.name for file in resolve(repo, config, split, revision)[1]]


def check_content(repo, commit, file):
    check(repo, commit, file, "content")


def fetch(repo, commit, file):
    download(repo, commit, file, Path("nowhere-is-written"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# which files


def test_a_configuration_of_the_card_gives_its_files_pinned_to_a_commit(hub):
    commit, files = resolve(SMOLLM, "fineweb-edu-dedup", "train", "main")
    assert commit == hub.repositories[SMOLLM].revisions["main"]
    assert [file.name for file in files] == [
        "fineweb-edu-dedup/train-00000-of-00002.parquet",
        "fineweb-edu-dedup/train-00001-of-00002.parquet",
    ]
    for file in files:
        assert file == lfs(file.name, hub.repositories[SMOLLM].files[file.name])
    assert resolve(SMOLLM, "fineweb-edu-dedup", "train", commit) == (commit, files)


def test_a_folder_gives_its_files_where_the_card_has_no_configuration(hub):
    assert names(STARCODER, "python") == [PYTHON, "python/train-00001-of-00002.parquet"]
    assert names(STARCODER, "python/") == names(STARCODER, "python")


def test_no_configuration_means_the_whole_repository(hub):
    assert names(DOLLY) == ["databricks-dolly-15k.jsonl"]
    assert len(names(STARCODER)) == 4


def test_listing_needs_few_requests_and_downloads_nothing(hub):
    hub.add("me/many", {f"python/train-{n:05}.parquet": b"x" for n in range(500)})
    assert len(names("me/many", "python")) == 500
    assert len(hub.requests) == 2
    assert not hub.asked("resolve") and not hub.asked("storage")


def test_a_listing_of_many_pages_is_read_to_its_end(hub):
    hub.page = 7
    expected = [f"python/train-{n:05}.parquet" for n in range(50)]
    hub.add("me/many", dict.fromkeys(expected, b"x"))
    assert names("me/many", "python") == expected


LAYOUT = [
    "README.md",
    "data/train-00000-of-00001.parquet",
    "data/test-00000-of-00001.parquet",
    "extra/deep/er/part1.jsonl",
    "extra/part2.jsonl.zst",
    "extra/picture.png",
]


@pytest.mark.parametrize(
    ("config", "split", "expected"),
    [
        ({"data_files": "data/train-*"}, "train", [1]),
        ({"data_files": ["data/train-*", "extra/*.zst"]}, "train", [1, 4]),
        ({"data_files": [{"split": "test", "path": ["data/test-*"]}]}, "test", [2]),
        ({"data_files": {"train": "data/train-*", "test": "data/test-*"}}, "test", [2]),
        ({"data_dir": "data"}, "train", [1]),
        ({"data_dir": "data"}, "test", [2]),
        ({"data_dir": "extra"}, "train", [3, 4]),
        ({"data_dir": "extra", "data_files": "**/part?.jsonl"}, "train", [3]),
        ({"data_files": "extra/*"}, "train", [4]),
        ({"data_files": "extra/**"}, "train", [3, 4]),
        ({"data_files": "./data/t[r]ain-0000[0-9]-of-*.parquet"}, "train", [1]),
        ({}, "test", [2]),
    ],
)
def test_every_spelling_of_a_card_is_understood(hub, config, split, expected):
    files = dict.fromkeys(LAYOUT, b"x")
    hub.add("me/card", files, configs=[{"config_name": "the one"} | config])
    assert names("me/card", "the one", split) == [LAYOUT[n] for n in expected]


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["a.jsonl", "b/c.parquet"], "train", ["a.jsonl", "b/c.parquet"]),
        (["train.jsonl", "val.jsonl", "latest.jsonl"], "train", ["train.jsonl"]),
        (["train.jsonl", "val.jsonl"], "validation", ["val.jsonl"]),
        (["data/train/0.parquet", "data/test/0.parquet"], "train", ["data/train/0.parquet"]),
        (["test_code/train-0.parquet", "x/test-0.jsonl"], "test", ["x/test-0.jsonl"]),
        (["train_sft-0.parquet", "train_gen-0.parquet"], "train_sft", ["train_sft-0.parquet"]),
        (["Training1.jsonl", "restrained.jsonl"], "train", ["Training1.jsonl"]),
        (["a.jsonl.gz", "a.ndjson.zst", "a.json.gz", "a.txt"], "train", [0, 1]),
    ],
)
def test_without_a_card_the_names_tell_the_split(hub, files, split, expected):
    hub.add("me/names", dict.fromkeys(files, b"x"))
    expected = sorted(files[e] if isinstance(e, int) else e for e in expected)
    assert names("me/names", split=split) == expected


@pytest.mark.parametrize(
    ("glob", "name", "expected"),
    [
        ("a/*", "a/b.jsonl", True),
        ("a/*", "a/b/c.jsonl", False),
        ("a/**", "a/b/c.jsonl", True),
        ("**/c.jsonl", "c.jsonl", True),
        ("a.jsonl", "axjsonl", False),
        ("[!a].jsonl", "a.jsonl", False),
    ],
)
def test_a_star_stays_in_its_folder_and_two_cross_it(glob, name, expected):
    assert named(name, [glob]) is expected


def test_an_unknown_configuration_is_answered_with_those_there_are(hub):
    with pytest.raises(ValueError, match=r"no configuration or folder 'fineweb'; it has cosmope"):
        resolve(SMOLLM, "fineweb", "train", "main")
    with pytest.raises(ValueError, match=r"folder 'pyton'; it has python, rust \(config\)\.$"):
        resolve(STARCODER, "pyton", "train", "main")


def test_an_unknown_split_is_answered_with_those_there_are(hub):
    hub.add("me/two", {"train-0.parquet": b"", "val-0.parquet": b""})
    with pytest.raises(ValueError, match=r"no split 'test'; it has train, validation \(split\)"):
        resolve("me/two", "", "test", "main")
    with pytest.raises(ValueError, match=r"cosmopedia-v2 has no split 'test'; it has train"):
        resolve(SMOLLM, "cosmopedia-v2", "test", "main")


def test_a_data_set_without_files_that_we_read_says_what_it_has(hub):
    hub.add("me/csv", {"data/a.csv": b"", "data/b.json": b""})
    with pytest.raises(ValueError, match=r"no \.parquet or \.jsonl file .* it has \.csv, \.json\."):
        resolve("me/csv", "data", "train", "main")


def test_a_card_that_names_a_missing_folder_says_so(hub):
    hub.add("me/card", {"a.jsonl": b""}, [{"config_name": "c", "data_files": "gone/*.jsonl"}])
    with pytest.raises(ValueError, match=r"tree/.*gone.* is not there"):
        resolve("me/card", "c", "train", "main")


# rights


def test_a_missing_data_set_may_also_be_a_private_one(hub, monkeypatch):
    hub.add("me/secret", {"a.jsonl": b'{"text": "x"}\n'}, private=True)
    for repo in ("me/nothing", "me/secret"):
        with pytest.raises(ValueError, match=rf"no data set {repo} .*if it is private, log in"):
            resolve(repo, "", "train", "main")
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert names("me/secret") == ["a.jsonl"]
    with pytest.raises(ValueError, match=r"no data set me/nothing .* check its name\.$"):
        resolve("me/nothing", "", "train", "main")


def test_a_missing_revision_is_named(hub):
    with pytest.raises(ValueError, match=r"revision/v9 is not there: .*no such branch"):
        resolve(SMOLLM, "", "train", "v9")


def test_a_name_that_is_none_is_refused_before_any_request(hub):
    with pytest.raises(ValueError, match="a b/c"):
        resolve("a b/c", "", "train", "main")
    assert not hub.requests


def test_a_gated_data_set_says_where_to_accept_its_licence(hub):
    commit, files = resolve(STARCODER, "python", "train", "main")
    page, tokens = f"{hub.endpoint}/datasets/{STARCODER}", f"{hub.endpoint}/settings/tokens"
    for ask in (check_content, fetch):
        with pytest.raises(ValueError) as refused:
            ask(STARCODER, commit, files[0])
        assert str(refused.value) == (
            f"bigcode/starcoderdata is gated: accept its licence at {page}, then log in with "
            f"`hf auth login` or set HF_TOKEN ({tokens})."
        )


def test_a_token_whose_account_has_no_access_yet_is_told_so(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "stranger")
    commit, files = resolve(STARCODER, "python", "train", "main")
    with pytest.raises(ValueError, match="account of your token has no access yet: accept its"):
        check(STARCODER, commit, files[0], "content")


def test_a_token_with_access_reads_what_is_gated_and_reaches_no_other_host(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "reader")
    commit, files = resolve(STARCODER, "python", "train", "main")
    check(STARCODER, commit, files[0], "content")
    path = download(STARCODER, commit, files[0], Path("got"))
    assert path == Path("got") / PYTHON
    assert path.read_bytes() == hub.repositories[STARCODER].files[PYTHON]
    assert {r.token for r in hub.requests if "/storage/" in r.path} == {""}
    assert {r.token for r in hub.requests if "/storage/" not in r.path} == {"reader"}


def test_a_login_of_earlier_is_used(hub, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_text("reader")
    commit, files = resolve(STARCODER, "python", "train", "main")
    check(STARCODER, commit, files[0], "content")


def test_a_token_that_the_hub_does_not_know_is_named(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "expired")
    with pytest.raises(ValueError, match=r"not accept the token .*HF_TOKEN.*/settings/tokens"):
        resolve(SMOLLM, "cosmopedia-v2", "train", "main")


def test_other_refusals_are_passed_on_with_the_hubs_reason(hub):
    hub.faults["revision"] = [status(451, X_Error_Message="Not in your country.")]
    with pytest.raises(ValueError, match=r"was refused with 451 Not in your country\.$"):
        resolve(SMOLLM, "", "train", "main")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 451])
def test_a_refusal_is_final(hub, waits, code):
    hub.faults["revision"] = [status(code)]
    with pytest.raises(ValueError):
        resolve(SMOLLM, "", "train", "main")
    assert len(hub.requests) == 1 and not waits


# the pre-flight


@pytest.mark.parametrize(
    ("repo", "config", "column"),
    [
        (SMOLLM, "fineweb-edu-dedup", "text"),
        (SMOLLM, "cosmopedia-v2", "text"),
        (STARCODER, "python", "content"),
        (DOLLY, "", "response"),
    ],
)
def test_the_reference_data_sets_pass(hub, monkeypatch, repo, config, column):
    monkeypatch.setenv("HF_TOKEN", "reader")
    commit, files = resolve(repo, config, "train", "main")
    check(repo, commit, files[0], column)


def test_the_pre_flight_of_a_large_file_reads_a_little_of_it(hub):
    noise = [os.urandom(20_000).hex() for _ in range(50)]
    for name, content in {
        "a.parquet": parquet(noise, "cosmopedia-v2"),
        "a.jsonl": jsonl([{"text": "short"}, *({"text": text} for text in noise)]),
        "a.jsonl.gz": b"\x1f\x8b" + bytes(10**6),
    }.items():
        hub.requests.clear()
        commit = hub.add("me/big", {name: content})
        check("me/big", commit, lfs(name, content), "text")
        assert sum(r.sent for r in hub.requests) <= 2**16 < len(content) / 10
        assert all(r.range for r in hub.asked("/storage/"))


def test_a_footer_longer_than_expected_is_read_whole(hub):
    import io

    import pyarrow
    from pyarrow.parquet import write_table

    out = io.BytesIO()
    table = pyarrow.table({f"a column with a long name {n}": ["x"] * 50 for n in range(300)})
    write_table(table.append_column("text", [["x"] * 50]), out, row_group_size=10)
    content = out.getvalue()
    assert int.from_bytes(content[-8:-4], "little") > 2**16
    check("me/wide", hub.add("me/wide", {"a.parquet": content}), lfs("a.parquet", content), "text")


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
        ("a.jsonl", b"{'text'}\n", "does not begin with JSON"),
    ],
)
def test_a_file_without_the_text_is_found_out_before_its_download(hub, name, content, sentence):
    commit = hub.add("me/odd", {name: content})
    with pytest.raises(ValueError, match=sentence):
        check("me/odd", commit, lfs(name, content), "text")


def test_a_column_of_numbers_or_structures_is_not_text(hub):
    content = parquet(["x"], "fineweb-edu-dedup")
    commit = hub.add("me/odd", {"a.parquet": content})
    with pytest.raises(ValueError, match=r"has struct<.* in 'metadata', not text \(column\)"):
        check("me/odd", commit, lfs("a.parquet", content), "metadata")


@pytest.mark.parametrize(
    "content", [b'\xef\xbb\xbf{"text": "x"}', b'\n{"text": null}\n', jsonl([{"text": "x" * 10**5}])]
)
def test_unusual_but_readable_jsonl_passes(hub, content):
    check("me/odd", hub.add("me/odd", {"a.jsonl": content}), lfs("a.jsonl", content), "text")


def test_a_server_that_sends_no_parts_is_not_downloaded_by_the_check(hub):
    commit, files = resolve(SMOLLM, "cosmopedia-v2", "train", "main")
    hub.faults["/storage/"] = [Fault(ignore_range=True)]
    with pytest.raises(ValueError, match="cannot be read in parts"):
        check(SMOLLM, commit, files[0], "text")


# patience


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_troubles_are_waited_out(hub, waits, tmp_path, code):
    trouble = [status(code), status(code)]
    hub.faults = {"revision": trouble, "tree": trouble[:], "resolve": trouble[:]}
    commit, files = resolve(DOLLY, "", "train", "main")
    check(DOLLY, commit, files[0], "response")
    hub.faults["storage"] = [status(code)] * 3
    download(DOLLY, commit, files[0], tmp_path)
    assert len(waits) == 9


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry_After": "Fri, 01 Jan 2100 00:00:00 GMT"}, hub_errors.LONGEST),
        ({"Retry_After": "Fri, 01 Jan 2010 00:00:00 GMT"}, 0),
    ],
)
def test_the_hubs_own_waiting_time_is_kept(hub, waits, headers, seconds):
    hub.faults["revision"] = [status(429, **headers)]
    assert names(DOLLY)
    assert len(waits) == 1 and seconds <= waits[0] <= seconds + hub_errors.BASE


def test_waits_grow_and_have_a_bound(hub, waits, monkeypatch, tmp_path):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    commit, files = resolve(DOLLY, "", "train", "main")
    hub.faults["resolve"] = [status(503)] * 20
    with pytest.raises(ConnectionError, match=r"/resolve/.* failed 12 times .*503 Service"):
        download(DOLLY, commit, files[0], tmp_path)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_when_patience_ends_the_sentence_names_address_reason_and_what_next(hub, waits):
    hub.faults["tree"] = [status(500)] * 6
    with pytest.raises(ConnectionError) as given_up:
        resolve(DOLLY, "", "train", "main")
    commit = hub.repositories[DOLLY].revisions["main"]
    assert str(given_up.value) == (
        f"{hub.endpoint}/api/datasets/{DOLLY}/tree/{commit}?recursive=True failed 6 times in a "
        f"row, the last time with 500 Internal Server Error; the same command goes on where it "
        f"stopped."
    )


def test_a_silent_server_is_left_and_asked_again(hub, waits, tmp_path):
    hub.faults = {"revision": [stall(2)], "tree": [stall(2)]}
    commit, files = resolve(DOLLY, "", "train", "main")
    hub.faults = {"storage": [stall(2)]}
    check(DOLLY, commit, files[0], "response")
    assert len(waits) == 3


def test_without_a_network_the_sentence_says_so(hub, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"^No connection to the Hub at http://127.0.0.1:9 "):
        resolve(DOLLY, "", "train", "main")
    assert len(waits) == hub_errors.ATTEMPTS - 1


def test_an_address_without_https_is_named(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "huggingface.co")
    with pytest.raises(ValueError, match=r"HF_ENDPOINT is 'huggingface\.co'"):
        resolve(DOLLY, "", "train", "main")


def test_a_login_page_of_a_hotel_is_not_taken_for_the_hub(hub):
    hub.faults["revision"] = [wrong(b"<html>")]
    with pytest.raises(ValueError, match="does not answer as the Hub does; check HF_ENDPOINT"):
        resolve(DOLLY, "", "train", "main")


def test_offline_mode_is_named(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE .*is set, so .* is not asked"):
        resolve(DOLLY, "", "train", "main")
    assert not hub.requests


def test_without_the_client_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    with pytest.raises(ValueError) as missing:
        resolve(DOLLY, "", "train", "main")
    assert str(missing.value) == (
        "Reading a Hub data set needs huggingface_hub: pip install 'auto-g-nano[data]'."
    )


# the download


def test_a_cut_connection_is_continued_where_it_broke(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(70_000), cut(50_000)]
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert [r.range for r in hub.asked("storage")] == ["", "bytes=70000-", "bytes=120000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_download_that_stalls_is_continued(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [stall(2, after=70_000)]
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert [r.range for r in hub.asked("storage")][-1] == "bytes=70000-"


def test_cuts_that_bring_new_bytes_never_end_the_patience(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(5_000)] * 30
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert len(hub.asked("storage")) == 31


def test_cuts_that_bring_nothing_end_it_and_the_same_call_goes_on(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(70_000)] + [cut(0)] * 30
    with pytest.raises(ConnectionError, match=r"failed 12 times in a row.*goes on where it"):
        download(repo, commit, file, tmp_path)
    hub.faults.clear()
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    assert hub.asked("storage")[-1].range == "bytes=70000-"


def test_a_server_that_ignores_the_range_is_taken_from_the_beginning(hub, tmp_path):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [cut(70_000), Fault(ignore_range=True)]
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file


def test_a_file_that_is_there_is_not_fetched_again(hub, tmp_path):
    repo, commit, file = served(hub)
    download(repo, commit, file, tmp_path)
    hub.requests.clear()
    assert download(repo, commit, file, tmp_path) == tmp_path / "a.jsonl"
    assert not hub.requests


def test_a_file_killed_just_before_its_renaming_is_not_sent_again(hub, tmp_path):
    repo, commit, file = served(hub)
    (tmp_path / "a.jsonl.incomplete").write_bytes(hub.repositories[repo].files["a.jsonl"])
    download(repo, commit, file, tmp_path)
    assert sum(r.sent for r in hub.requests) == 0


@pytest.mark.parametrize("there", [b"another file", b"9" * 300_000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.incomplete"])
def test_what_an_older_commit_left_does_not_get_into_the_file(hub, tmp_path, there, name):
    repo, commit, file = served(hub)
    (tmp_path / name).write_bytes(there)
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file


@pytest.mark.parametrize("content", [b"1" * 200_000, b"short", b"2" * 300_000])
def test_wrong_bytes_are_fetched_anew_once_and_then_refused(hub, tmp_path, content):
    repo, commit, file = served(hub)
    hub.faults["storage"] = [wrong(content)]
    path = download(repo, commit, file, tmp_path)
    assert lfs(file.name, path.read_bytes()) == file
    path.unlink()
    hub.faults["storage"] = [wrong(content)] * 2
    with pytest.raises(ValueError, match=r"came twice with other bytes .*200,000 bytes"):
        download(repo, commit, file, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_small_file_outside_lfs_is_checked_by_its_git_hash(hub, tmp_path):
    commit = hub.add("me/small", {"data/a.ndjson": b'{"text": "x"}\n'})
    _, [file] = resolve("me/small", "data", "train", "main")
    assert len(file.identity) == 40
    check("me/small", commit, file, "text")
    hub.faults["resolve"] = [wrong(b'{"text": "y"}\n')]
    assert download("me/small", commit, file, tmp_path).read_bytes() == b'{"text": "x"}\n'
    assert len(hub.asked("resolve")) == 3


def test_an_empty_file_arrives(hub, tmp_path):
    commit = hub.add("me/empty", {"a.jsonl": b""})
    assert download("me/empty", commit, lfs("a.jsonl", b""), tmp_path).read_bytes() == b""


@pytest.mark.parametrize("name", ["../a.jsonl", "/a.jsonl", "b/../../a.jsonl"])
def test_a_name_that_leaves_the_folder_is_refused(hub, tmp_path, name):
    with pytest.raises(ValueError, match="would leave"):
        download("me/evil", "main", HubFile(name, 1, ""), tmp_path / "in")
    assert not hub.requests


PROGRAM = """
from pathlib import Path
from gnano.data.hub import check, download, resolve
commit, [file] = resolve("me/big", "", "train", "main")
check("me/big", commit, file, "text")
download("me/big", commit, file, Path("got"))
"""


def test_a_killed_process_is_continued_by_the_next_one(hub, tmp_path):
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
    assert hub.asked("storage")[-1].range == "bytes=150000-"


def test_a_folder_of_files_can_be_served(tmp_path):
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set/data/a.jsonl").write_bytes(b"{}")
    hub = Hub()
    hub.add("me/folder", tmp_path / "set")
    assert hub.repositories["me/folder"].files == {"data/a.jsonl": b"{}"}
