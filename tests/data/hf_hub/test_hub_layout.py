"""The files of a configuration and split, by the card or by their names."""

import re

import pytest
from tests.data.hf_hub.conftest import names

from gnano.utils.hf_datasets import glob_to_regex

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
def test_every_form_of_a_card_is_understood(hub, config, split, expected):
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
        (["a.jsonl.gz", "a.ndjson.zst", "a.json.gz", "a.txt"], "train", [0, 1, 2]),
        (["a.jl", "b.jsonlines", "C.JSONL"], "train", [0, 1, 2]),
        (["train-0.parquet", "train.json", "info.json"], "train", [0]),  # metadata
        (["train.json", "test.json", "dataset_infos.json"], "train", [0]),
        (["alpaca.json", "config.json"], "train", [0]),
    ],
)
def test_without_a_card_the_names_determine_the_split(hub, files, split, expected):
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
def test_one_star_stays_in_a_folder_and_two_cross_folders(glob, name, expected):
    assert bool(re.fullmatch(glob_to_regex(glob), name)) is expected
