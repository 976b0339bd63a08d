"""A dataset resolves to files at a fixed commit with few requests; errors list what exists."""

import pytest
from tests.data.hf_hub.conftest import lfs, names
from tests.data.hf_hub.samples import DOLLY, SMOLLM, STARCODER

from gnano.utils.hf_datasets import resolve_dataset

PYTHON = "python/train-00000-of-00002.parquet"


def test_a_configuration_of_the_card_gives_its_files_pinned_to_a_commit(hub):
    commit, files = resolve_dataset(SMOLLM, "fineweb-edu-dedup", "train", "main")
    assert commit == hub.repositories[SMOLLM].revisions["main"]
    assert [file.name for file in files] == [
        "fineweb-edu-dedup/train-00000-of-00002.parquet",
        "fineweb-edu-dedup/train-00001-of-00002.parquet",
    ]
    for file in files:
        assert file == lfs(file.name, hub.repositories[SMOLLM].files[file.name])
    assert resolve_dataset(SMOLLM, "fineweb-edu-dedup", "train", commit) == (commit, files)


def test_a_folder_gives_its_files_where_the_card_has_no_configuration(hub):
    assert names(STARCODER, "python") == [PYTHON, "python/train-00001-of-00002.parquet"]
    assert names(STARCODER, "python/") == names(STARCODER, "python")


def test_no_configuration_means_all_files(hub):
    assert names(DOLLY) == ["databricks-dolly-15k.jsonl"]
    assert len(names(STARCODER)) == 4


def test_listing_needs_few_requests_and_downloads_nothing(hub):
    hub.add("me/many", {f"python/train-{n:05}.parquet": b"x" for n in range(500)})
    assert len(names("me/many", "python")) == 500
    assert len(hub.requests) == 2
    assert not hub.requests_for("resolve") and not hub.requests_for("storage")


def test_a_listing_of_many_pages_is_read_completely(hub):
    hub.page = 7
    expected = [f"python/train-{n:05}.parquet" for n in range(50)]
    hub.add("me/many", dict.fromkeys(expected, b"x"))
    assert names("me/many", "python") == expected


def test_an_unknown_configuration_lists_the_existing_ones(hub):
    with pytest.raises(ValueError, match=r"no configuration or folder 'fineweb'; it has cosmope"):
        resolve_dataset(SMOLLM, "fineweb", "train", "main")
    with pytest.raises(ValueError, match=r"folder 'pyton'; it has python, rust \(config\)\.$"):
        resolve_dataset(STARCODER, "pyton", "train", "main")


def test_an_unknown_split_lists_the_existing_ones(hub):
    hub.add("me/two", {"train-0.parquet": b"", "val-0.parquet": b""})
    with pytest.raises(ValueError, match=r"no split 'test'; it has train, validation \(split\)"):
        resolve_dataset("me/two", "", "test", "main")
    with pytest.raises(ValueError, match=r"cosmopedia-v2 has no split 'test'; it has train"):
        resolve_dataset(SMOLLM, "cosmopedia-v2", "test", "main")


def test_a_dataset_without_readable_files_lists_its_file_types(hub):
    hub.add("me/csv", {"data/a.csv": b"", "data/b.txt": b""})
    with pytest.raises(ValueError, match=r"no \.parquet, \.jsonl or .* it has \.csv, \.txt\."):
        resolve_dataset("me/csv", "data", "train", "main")


def test_a_missing_folder_of_a_card_is_named(hub):
    hub.add("me/card", {"a.jsonl": b""}, [{"config_name": "c", "data_files": "gone/*.jsonl"}])
    with pytest.raises(ValueError, match=r"tree/.*gone.* does not exist"):
        resolve_dataset("me/card", "c", "train", "main")
