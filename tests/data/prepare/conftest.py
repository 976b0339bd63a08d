"""Fixtures for the tests of scaled-out preparation: a corpus of several files, and its results."""

import json
import random
import shutil
from pathlib import Path

import pytest
from tests.data.conftest import some_texts, write_jsonl

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data import source_files
from gnano.data.prepare.cluster import LOGS_FOLDER
from gnano.data.prepare.pipeline import prepare


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Two sources of several files each, with duplicates within and across files and sources."""
    home = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    common = some_texts("xyz", 30)
    for name, files in (("a", 5), ("b", 4)):
        for n in range(files):
            texts = some_texts("abcdefgh", 60, seed=(name, n)) + rng.sample(common, 12)
            write_jsonl(home / name / f"{n}.jsonl", texts + texts[:3])
    return home


def make_config(folder, corpus, tokenizer_folder, **budgets):
    """Return a configuration of the corpus's two sources with these budgets."""
    return DataConfig(
        folder=str(folder),
        tokenizer=tokenizer_folder,
        heldout_fraction=0.1,
        shard_tokens=1_500,
        max_bad_share=0,
        sources={
            name: SourceConfig(files=(str(corpus / name),), max_tokens=budgets.get(name, 0))
            for name in ("a", "b")
        },
    )


@pytest.fixture
def config(corpus, tmp_path, tokenizer_folder):
    """config(folder, corpus=…, **budgets): a configuration of both sources with these budgets."""

    def make(folder, corpus=corpus, **budgets):
        return make_config(tmp_path / folder, corpus, tokenizer_folder, **budgets)

    return make


@pytest.fixture(scope="session")
def reference_folder(corpus, tmp_path_factory, tokenizer_folder):
    """The folder that `prepare` makes of the corpus; tests must not change it."""
    folder = tmp_path_factory.mktemp("reference") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, "MIN_TASK_BYTES", 1)
        prepare(make_config(folder, corpus, tokenizer_folder))
    return folder


@pytest.fixture
def files(tree):
    """files(folder): every file and its bytes, without datatrove's logs."""

    def read(folder):
        return {k: v for k, v in tree(folder).items() if not k.startswith(f"{LOGS_FOLDER}/")}

    return read


def drafts(folder):
    """Return the complete drafts and their times of creation."""
    found = Path(folder).glob(".work/*/*/draft.json")
    return {path.parent: path.stat().st_mtime_ns for path in found}


def documents_read(folder, number=1):
    """Return the number of tasks of a round, and of documents read, from datatrove's statistics."""
    (step,) = json.loads(Path(folder, LOGS_FOLDER, f"{number:03}/tokenize/stats.json").read_text())
    return step["stats"]["documents read"]["n"], step["stats"]["documents read"]["total"]


def break_a_line(path):
    """Break one of the last lines; return the correct text."""
    good = path.read_text()
    lines = good.splitlines(keepends=True)
    lines[-5] = lines[-5].replace('": "', '"; "')
    path.write_text("".join(lines))
    return good


def broken_corpus(config, corpus, tmp_path, folder):
    """Return the configuration of a corpus with one bad file, that file, and its correct text."""
    copy = tmp_path / "broken corpus"
    shutil.copytree(corpus, copy)
    path = copy / "b/1.jsonl"
    good = break_a_line(path)
    return config(folder, copy), path, good
