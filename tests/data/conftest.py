"""Small corpora whose texts are known, and ways to look at shards without our own readers."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gnano.data import DataConfig, Source, prepare
from gnano.data.split import digest
from gnano.tokenizer import Tokenizer, train_bpe

LETTERS = {"a": "abcdefgh", "b": "ijklmnop", "c": "qrstuvwx"}  # tell the sources apart


def some_texts(letters, count, seed=0):
    """Different short documents, with characters of one to four bytes."""
    draw = random.Random(f"{letters} {seed}")
    words = ["".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(200)]
    texts = [
        " ".join(draw.choices(words, k=draw.randint(3, 40)))
        + draw.choice([".", "é!", " 漢字", " 🙂"])
        for _ in range(count)
    ]
    return list(dict.fromkeys(texts))


def write_jsonl(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@dataclass
class Prepared:
    """A prepared folder, read with nothing but NumPy."""

    folder: Path
    texts: dict[str, list[str]]  # what the sources were made from

    @property
    def tokenizer(self):
        return Tokenizer.load(self.folder)

    def shards(self, source):
        paths = sorted((self.folder / source).glob("[0-9]*.tokens"))
        return [np.fromfile(path, dtype="<u2") for path in paths]

    def heldout(self, source):
        return np.fromfile(self.folder / source / "heldout.tokens", dtype="<u2")

    def documents(self, tokens):
        """The texts in a row of ids: end-of-text stands before each."""
        tokenizer = self.tokenizer
        assert not len(tokens) or tokens[0] == tokenizer.end_of_text
        cuts = np.flatnonzero(tokens == tokenizer.end_of_text)
        return [tokenizer.decode(part.tolist()) for part in np.split(tokens, cuts)[1:]]

    def training_documents(self, source):
        return [text for tokens in self.shards(source) for text in self.documents(tokens)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A small tokenizer of our own, saved: nothing needs to be trained to prepare with it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [text for letters in LETTERS.values() for text in some_texts(letters, 200)]
    train_bpe(texts, 320).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mix(tmp_path_factory, tokenizer_folder):
    """Three prepared sources of several shards each, in 40/25/35. Not to be written to."""
    home = tmp_path_factory.mktemp("mix")
    texts = {name: some_texts(letters, 400) for name, letters in LETTERS.items()}
    weights = {"a": 40, "b": 25, "c": 35}
    config = DataConfig(
        folder=str(home / "prepared"),
        tokenizer=tokenizer_folder,
        heldout=0.1,
        shard_tokens=4_000,
        sources={
            name: Source(weight=weights[name], files=(write_jsonl(home / f"{name}.jsonl", t),))
            for name, t in texts.items()
        },
    )
    prepare(config)
    return Prepared(Path(config.folder), texts)


@pytest.fixture
def make(tmp_path, tokenizer_folder):
    """make(a=[texts], b=[texts], heldout=0.2 …): a configuration to prepare in `tmp_path`."""

    def config(folder="prepared", tokenizer=tokenizer_folder, heldout=0.1, **named):
        texts = {name: named.pop(name) for name in list(named) if isinstance(named[name], list)}
        sources = {
            # the same texts lie at the same place, others at another
            name: Source(
                files=(write_jsonl(tmp_path / digest("".join(t)).hex() / f"{name}.jsonl", t),)
            )
            for name, t in texts.items()
        }
        return DataConfig(
            folder=str(tmp_path / folder),
            tokenizer=tokenizer,
            heldout=heldout,
            sources=sources,
            **named,
        )

    return config


@pytest.fixture
def prepared():
    """prepared(configuration): prepare it and look at what is there."""

    def look(config):
        prepare(config)
        return Prepared(Path(config.folder), {})

    return look


@pytest.fixture
def tree():
    """tree(folder): every file below it, and its bytes."""

    def read(folder):
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
