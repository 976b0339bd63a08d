"""Small corpora with known texts, and readers of shards that use only NumPy."""

import gzip
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import zstandard

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data import source_files
from gnano.data.manifest import text_position
from gnano.data.prepare.pipeline import prepare
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.tokenizer.train_bpe import train_bpe

DEMO_GENERATORS = [
    *("gnano.demo.python_corpus:PROSE", "gnano.demo.python_corpus:CODE"),
    "gnano.demo.synthetic_text:PASSAGES",
]
PACKED: dict[str, Callable[[bytes], bytes]] = {  # as the command-line tools write it
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
LETTERS = {"a": "abcdefgh", "b": "ijklmnop", "c": "qrstuvwx"}  # identify the sources


def some_texts(letters, count, seed=0):
    """Return distinct short documents, with characters of one to four bytes."""
    rng = random.Random(f"{letters} {seed}")
    words = ["".join(rng.choices(letters, k=rng.randint(1, 8))) for _ in range(200)]
    texts = [
        " ".join(rng.choices(words, k=rng.randint(3, 40))) + rng.choice([".", "é!", " 漢字", " 🙂"])
        for _ in range(count)
    ]
    return list(dict.fromkeys(texts))


def numbered(start, stop):
    return [f"text number {n} of a few words, abc" for n in range(start, stop)]


def parts(texts, count):
    """Distribute texts over `count` files."""
    return {f"{n}.jsonl": texts[n::count] for n in range(count)}


def write_jsonl(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def write_files(folder, files):
    """Write {name: texts} as JSONL files; return their folder."""
    for name, texts in files.items():
        write_jsonl(folder / name, texts)
    return str(folder)


def with_source(config, name, **changes):
    """Return the configuration with one source changed."""
    return replace(
        config, sources=config.sources | {name: replace(config.sources[name], **changes)}
    )


@dataclass
class Prepared:
    """A prepared folder, read with nothing but NumPy."""

    folder: Path
    files: dict[str, dict[str, list[str]]]  # the texts of each source by file

    @property
    def tokenizer(self):
        return load_tokenizer(self.folder)

    def texts(self, source):
        """Return the texts of a source in the order of its plan."""
        plan = json.loads((self.folder / "manifest.json").read_text())["plan"]
        tasks = plan["sources"][source]["tasks"]
        return [text for task in tasks for file in task for text in self.files[source][file[0]]]

    def shards(self, source):
        paths = sorted((self.folder / source).glob("*-[0-9]*.tokens"))
        return [np.fromfile(path, dtype="<u2") for path in paths]

    def heldout(self, source):
        paths = sorted((self.folder / source).glob("*-heldout.tokens"))
        return np.concatenate([np.empty(0, "<u2"), *(np.fromfile(p, "<u2") for p in paths)])

    def documents(self, tokens):
        """Decode ids into texts; end-of-text precedes each."""
        tokenizer = self.tokenizer
        assert not len(tokens) or tokens[0] == tokenizer.end_of_text_id
        cuts = np.flatnonzero(tokens == tokenizer.end_of_text_id)
        return [tokenizer.decode(part.tolist()) for part in np.split(tokens, cuts)[1:]]

    def training_documents(self, source):
        return [text for tokens in self.shards(source) for text in self.documents(tokens)]

    def heldout_documents(self, source):
        return self.documents(self.heldout(source))


@pytest.fixture(scope="session", autouse=True)
def no_power_failure():
    """Skip fsync: it only matters after a power failure, and is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Return the folder of a small tokenizer, so that preparation needs no training."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [text for letters in LETTERS.values() for text in some_texts(letters, 200)]
    train_bpe(texts, 320).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mix(tmp_path_factory, tokenizer_folder):
    """Return a read-only folder of three sources with three tasks of several shards each."""
    home = tmp_path_factory.mktemp("mix")
    files = {name: parts(some_texts(letters, 400), 3) for name, letters in LETTERS.items()}
    weights = {"a": 40, "b": 25, "c": 35}
    config = DataConfig(
        folder=str(home / "prepared"),
        tokenizer=tokenizer_folder,
        heldout_fraction=0.1,
        shard_tokens=3_000,
        workers=1,
        sources={
            name: SourceConfig(weight=weights[name], files=(write_files(home / name, files[name]),))
            for name in files
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, "MIN_TASK_BYTES", 1)
        prepare(config)
    return Prepared(Path(config.folder), files)


@pytest.fixture
def small_tasks(monkeypatch):
    """Make every file a separate task."""
    monkeypatch.setattr(source_files, "MIN_TASK_BYTES", 1)


@pytest.fixture
def make(tmp_path, tokenizer_folder):
    """make(a=[texts], b={file: [texts]}, heldout=0.2 …): return a configuration."""

    def config(folder="prepared", tokenizer=tokenizer_folder, heldout=0.1, workers=1, **named):
        texts = {n: named.pop(n) for n in list(named) if isinstance(named[n], list | dict)}
        sources = {}
        for name, content in texts.items():
            files = content if isinstance(content, dict) else {f"{name}.jsonl": content}
            # equal texts have the same path, different ones another
            home = tmp_path / str(text_position(json.dumps(files))) / name
            sources[name] = SourceConfig(files=(write_files(home, files),))
        return DataConfig(
            folder=str(tmp_path / folder),
            tokenizer=tokenizer,
            heldout_fraction=heldout,
            workers=workers,
            sources=sources,
            **named,
        )

    return config


@pytest.fixture
def prepared():
    """prepared(config): prepare it and return the folder."""

    def run(config):
        prepare(config)
        return Prepared(Path(config.folder), {})

    return run


@pytest.fixture
def tree():
    """tree(folder): return the bytes of every file below it, except the lock."""

    def read(folder):
        files = (p for p in Path(folder).rglob("*") if p.is_file() and p.name != ".lock")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture
def file(tmp_path):
    """file("name", bytes or str): write a file and return its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
