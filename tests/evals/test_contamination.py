"""Items that the training shards contain are found, and others are not."""

import json
import random
import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import WORDS
from tests.data.test_ngram_overlap import grams

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.manifest import is_heldout
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import Document
from gnano.evals import contamination
from gnano.evals.contamination import find_contamination

SHARE = 0.1  # held out
VERBATIM = "In 1912 the old café's keeper (a widow) sold 3 maps; nobody knew where they would lead."
DRESSED = "“Nobody,” said she,\nNOBODY shall take from ÉMILE - her son - the old house by the sea"
UNDRESSED = "nobody said she nobody shall take from émile her son the old house by the sea"
CUT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
TWELVE = "these twelve words are in a training document and not looked for"
HELDOUT = "a document that was kept from training holds this very question and its answer too"
CLEAN = "what nobody wrote anywhere cannot have been read by any model that was trained on it"


def sentences(rng, words):
    return " ".join(rng.choices(WORDS, k=words))


def document(text, heldout=False, front=False):
    """Return the text with a number that makes it held-out, or not."""
    for number in count():
        numbered = f"{number} {text}" if front else f"{text} {number}"
        if is_heldout(Document(numbered, ""), SHARE) == heldout:
            return numbered
    raise AssertionError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of two sources with many small shards; some documents contain items."""
    folder = tmp_path_factory.mktemp("planted")
    rng = random.Random(3)
    middle = CUT.index("eight")
    planted = {
        "left": [VERBATIM, TWELVE],
        "right": [UNDRESSED.replace("she", "She --"), VERBATIM.upper()],
    }
    for name, texts in planted.items():
        documents = [document(sentences(rng, rng.randrange(5, 150))) for _ in range(60)]
        for text in texts:
            around = f"{sentences(rng, 20)}. {text}. {sentences(rng, 20)}"
            documents.insert(rng.randrange(20, 50), document(around))
        documents[10:10] = [document(CUT[:middle], front=True), document(CUT[middle:])]
        documents += [document(f"{HELDOUT} {name}", heldout=True)]
        lines = [json.dumps({"text": text}) + "\n" for text in documents]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    config = DataConfig(
        folder=str(folder / "data"),
        tokenizer="bpe-300",
        heldout_fraction=SHARE,
        shard_tokens=3_000,
        sources={
            name: SourceConfig(weight=0.5, files=(str(folder / f"{name}.jsonl"),))
            for name in planted
        },
    )
    prepare(config)
    return TokenizedCorpus(folder / "data")


def training_documents(corpus):
    """Yield source, shard, number and text of each document, split at end-of-text."""
    end = corpus.tokenizer.end_of_text_id
    for source, name in enumerate(corpus.source_names):
        for shard, info in enumerate(corpus.shard_infos[source]):
            ids = corpus.shard_tokens(source, shard).tolist()
            starts = [i for i, id in enumerate(ids) if id == end]
            for n, (a, b) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
                yield name, info.name, n, corpus.tokenizer.decode(ids[a:b])


@pytest.mark.parametrize("batch_tokens", [1, 500, contamination.BATCH_TOKENS])
def test_item_counts_if_a_training_document_shares_thirteen_words(
    corpus, monkeypatch, batch_tokens
):
    monkeypatch.setattr(contamination, "BATCH_TOKENS", batch_tokens)
    items = [CLEAN, VERBATIM, CUT, TWELVE, DRESSED, HELDOUT, "", f"{CLEAN} {VERBATIM}"]
    checked, shared = find_contamination(corpus, items)
    assert checked == {0, 1, 2, 4, 5, 7}  # without TWELVE and the empty one
    assert list(shared) == [example.item for example in shared.values()] == [1, 4, 7]
    texts = {tuple(where): text for *where, text in training_documents(corpus)}
    assert CUT in " ".join(text.strip() for text in texts.values())
    assert HELDOUT in corpus.heldout_text(0).decode()
    for example in shared.values():
        run = tuple(example.words.split())
        assert run in grams(items[example.item])
        assert run in grams(texts[example.source, example.shard, example.document])


@pytest.fixture(scope="module")
def many(corpus):
    """Items of every kind, and those that share a run, found by comparing all runs."""
    rng = random.Random(4)
    texts = [text for *_, text in training_documents(corpus)]
    items = [sentences(rng, rng.randrange(30)) for _ in range(50)]
    for _ in range(80):
        words = rng.choice(texts).split()
        start = rng.randrange(len(words))
        part = words[start : start + rng.randrange(10, 18)]
        items.append(f"{sentences(rng, 3)}, {' '.join(part).title()} {sentences(rng, 3)}")
    known = set().union(*map(grams, texts))
    rng.shuffle(items)
    return items, [n for n, item in enumerate(items) if grams(item) & known]


def test_found_items_equal_those_of_comparing_all_runs(corpus, many):
    items, expected = many
    checked, shared = find_contamination(corpus, items)
    assert list(shared) == expected
    assert checked == {n for n, item in enumerate(items) if grams(item)}
    assert len(items) > len(checked) > len(expected) > 20


@pytest.mark.slow
def test_several_workers_find_the_same(corpus, many, processes):
    items, _ = many
    shown: list[str] = []
    expected = find_contamination(corpus, items, num_workers=1)
    assert not processes
    assert find_contamination(corpus, items, shown.append, num_workers=3) == expected
    assert len(processes) == 3
    assert all(process.returncode is not None for process in processes)
    shares = [int(text.split("%")[0]) for text in shown]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert re.search(r"· \d+:\d\d left", shown[0])


@pytest.fixture
def processes(monkeypatch):
    """The processes that are started."""
    started = []

    def start(*args, _popen=subprocess.Popen, **kwargs):
        started.append(_popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


@pytest.mark.slow
def test_ctrl_c_ends_the_workers(corpus, many, processes):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        find_contamination(corpus, many[0], interrupt, num_workers=2)
    assert len(processes) == 2
    assert all(process.returncode is not None for process in processes), caught


@pytest.mark.parametrize("program", ["pass", "import time; time.sleep(0.5)"])
def test_killed_worker_is_an_error(corpus, many, processes, monkeypatch, program):
    monkeypatch.setattr(contamination, "WORKER_COMMAND", [sys.executable, "-c", program])
    with pytest.raises(OSError, match=r"was killed.*fewer workers\.$"):
        find_contamination(corpus, many[0], num_workers=2)
    assert all(process.returncode is not None for process in processes)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_shard_is_named(corpus, many, tmp_path, workers):
    folder = Path(shutil.copytree(corpus.folder, tmp_path / "data"))
    path = folder / corpus.source_names[1] / f"{corpus.shard_infos[1][0].name}.tokens"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name} does not match its checksum"):
        find_contamination(TokenizedCorpus(folder), many[0], num_workers=workers)


def test_items_without_thirteen_words_are_not_checked(corpus):
    assert find_contamination(corpus, []) == (set(), {})
    assert find_contamination(corpus, [TWELVE, ""]) == (set(), {})
