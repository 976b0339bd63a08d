"""Training and held-out rows contain each token as often as they must, in every process."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

import gnano.model.fused_cross_entropy
from gnano.data.packed_dataset import (
    IGNORE_INDEX,
    PackedDataset,
    TokenizedCorpus,
    iter_heldout_batches,
)
from gnano.data.prepare.pipeline import prepare
from gnano.tokenizer.train_bpe import train_bpe

T = 16
NAMES = ["a", "b", "c"]
WEIGHTS = {"a": 40.0, "b": 25.0, "c": 35.0}


@pytest.fixture(scope="module")
def corpus(mix):
    return TokenizedCorpus(mix.folder)


@pytest.fixture(scope="module")
def dataset(corpus):
    return PackedDataset(corpus, WEIGHTS, 7, T)


def read_row(dataset, sample):
    """Return the T + 1 ids of a sample."""
    inputs, targets, _ = dataset.read_batch([sample])
    return [*inputs[0].tolist(), targets[0, -1].item()]


def cut(tokens, length):
    """Cut a shard into rows of T + 1 ids, T further each time, the last one moved back."""
    rows = []
    start = 0
    while start + length + 1 <= len(tokens):
        rows.append(tokens[start : start + length + 1])
        start += length
    if start < len(tokens) - 1:
        rows.append(tokens[len(tokens) - length - 1 :])
    return rows


def test_every_row_occurs_once_per_epoch(mix, dataset):
    expected = {
        (source, shard, row): ids.tolist()
        for source, name in enumerate(NAMES)
        for shard, tokens in enumerate(mix.shards(name))
        for row, ids in enumerate(cut(tokens, T))
    }
    assert max(shard for _, shard, _ in expected) > 1  # several shards
    seen: Counter[tuple[int, int, int]] = Counter()
    finished: set[int] = set()
    i = 0
    while len(finished) < len(NAMES):
        place = dataset.sampler.locate(i)
        assert read_row(dataset, i) == expected[place.source, place.shard, place.row]
        if place.epoch == 0:
            seen[place.source, place.shard, place.row] += 1
        else:
            finished.add(place.source)
        i += 1
    assert seen == Counter(expected.keys())


@pytest.mark.parametrize("length", [1, 2, 16, 333])
def test_every_token_but_a_shards_first_is_a_target_in_each_epoch(mix, corpus, length):
    dataset = PackedDataset(corpus, {"a": 0, "b": 1, "c": 0}, 3, length)
    targets: Counter[int] = Counter()
    i = 0
    while dataset.sampler.locate(i).epoch == 0:
        targets.update(read_row(dataset, i)[1:])
        i += 1
    shards = mix.shards("b")
    once = Counter(chain.from_iterable(tokens[1:].tolist() for tokens in shards))
    assert once <= targets
    # no more than one row of each shard repeats what another has
    assert targets.total() - once.total() < len(shards) * length
    stats = dataset.packing_stats()
    slots = sum(dataset.rows_per_shard[1]) * length - once.total()
    assert (stats.padding, stats.dropped_tokens) == (0, 0) and stats.repeated_targets >= slots


def test_the_target_of_a_token_is_the_one_after_it(mix, dataset):
    samples = range(500, 540)
    x, y, segments = dataset.read_batch(samples)
    assert segments is None
    assert x.shape == y.shape == (40, T)
    assert str(x.dtype) == str(y.dtype) == "torch.int64"
    raw = {name: mix.shards(name) for name in NAMES}
    for number, i in enumerate(samples):
        place = dataset.sampler.locate(i)
        tokens = raw[NAMES[place.source]][place.shard]
        start = min(place.row * T, len(tokens) - T - 1)
        assert x[number].tolist() == tokens[start : start + T].tolist()
        assert y[number].tolist() == tokens[start + 1 : start + T + 1].tolist()


def test_changing_a_batch_does_not_change_the_corpus(dataset):
    before = dataset.read_batch([3])[0].tolist()
    dataset.read_batch([3])[0].zero_()
    assert dataset.read_batch([3])[0].tolist() == before


def test_the_mix_of_real_batches_is_exact(mix, dataset):
    """The letters of a row identify its source."""
    letters = [bytes(range(ord(first), ord(first) + 8)) for first in "aiq"]
    pieces = [mix.tokenizer.decode_bytes([t]) for t in range(mix.tokenizer.vocab_size)]
    for block in range(3):
        drawn: Counter[int] = Counter()
        for first in range(block * 1_000, (block + 1) * 1_000, 50):
            x = dataset.read_batch(range(first, first + 50)).inputs_BT
            for row in x.tolist():
                text = b"".join(pieces[t] for t in row)
                (source,) = (s for s in range(3) if any(b in letters[s] for b in text))
                drawn[source] += 1
        assert drawn == {0: 400, 1: 250, 2: 350}


def digest(dataset, samples):
    inputs, targets, _ = dataset.read_batch(samples)
    return hashlib.sha256(inputs.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()


@pytest.mark.slow
def test_workers_in_other_processes_read_the_same_in_any_order(mix, dataset):
    program = (
        "import hashlib, json, sys\n"
        "from pathlib import Path\n"
        "from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus\n"
        "folder, weights, parts = json.load(sys.stdin)\n"
        "dataset = PackedDataset(TokenizedCorpus(Path(folder)), weights, 7, 16)\n"
        "for samples in parts:\n"
        "    inputs, targets, _ = dataset.read_batch(samples)\n"
        "    rows = inputs.numpy().tobytes() + targets.numpy().tobytes()\n"
        "    print(hashlib.sha256(rows).hexdigest())\n"
    )
    forwards = [list(range(first, first + 100)) for first in range(0, 3_000, 100)]
    backwards = [part[::-1] for part in forwards[::-1]]
    for seed, parts in ("1", forwards), ("2", backwards):
        out = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps([str(mix.folder), WEIGHTS, parts]),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.split() == [digest(dataset, part) for part in parts]


def test_a_batch_does_not_depend_on_what_was_read_before(mix, dataset):
    fresh = PackedDataset(TokenizedCorpus(mix.folder), WEIGHTS, 7, T)
    late = fresh.read_batch(range(2_000, 2_010))
    dataset.read_batch(range(5_000, 5_050))
    again = dataset.read_batch(range(2_000, 2_010))
    assert late.inputs_BT.equal(again.inputs_BT) and late.targets_BT.equal(again.targets_BT)


def test_the_order_of_the_recipes_sources_does_not_matter(corpus, dataset):
    turned = PackedDataset(corpus, dict(reversed(WEIGHTS.items())), 7, T)
    assert digest(turned, range(500)) == digest(dataset, range(500))


def test_the_ignore_index_is_the_models():
    assert gnano.model.fused_cross_entropy.IGNORE_INDEX == IGNORE_INDEX


def counted(rows, length, size=5):
    """Return the held-out targets that count, in order."""
    found = []
    for x, y in iter_heldout_batches(rows, length, size):
        assert x.shape == y.shape == (len(y), length)
        assert len(y) <= size
        found += y[y != IGNORE_INDEX].tolist()
    return found


@pytest.mark.parametrize("length", [1, 2, 7, 64, 10**5])
@pytest.mark.parametrize("source", range(3))
def test_every_held_out_token_but_the_first_counts_exactly_once(mix, corpus, source, length):
    tokens = mix.heldout(NAMES[source])
    assert len(tokens) > 500
    assert counted(corpus.heldout_rows(source, length), length) == tokens[1:].tolist()


@pytest.mark.parametrize("length", [7, 64, 10**5])
def test_counted_targets_represent_exactly_the_bytes_of_the_held_out_texts(mix, corpus, length):
    for source, name in enumerate(NAMES):
        heldout = set(mix.texts(name)) - set(mix.training_documents(name))
        targets = counted(corpus.heldout_rows(source, length), length)
        represented = int(corpus.tokenizer.token_bytes[targets].sum())
        assert represented == sum(len(text.encode()) for text in heldout) > 500


@pytest.mark.parametrize("length", [7, 64])
def test_a_counted_target_is_predicted_from_the_tokens_before_it(mix, corpus, length):
    tokens = mix.heldout("a").tolist()
    place = 1
    for x, y in iter_heldout_batches(corpus.heldout_rows(0, length), length, 4):
        for inputs, targets in zip(x.tolist(), y.tolist(), strict=True):
            for column, target in enumerate(targets):
                if target != IGNORE_INDEX:
                    assert inputs[: column + 1] == tokens[place - column - 1 : place]
                    assert target == tokens[place]
                    place += 1
    assert place == len(tokens)


def test_held_out_text_is_the_held_out_documents_and_nothing_else(mix, corpus):
    for source, name in enumerate(NAMES):
        trained = set(mix.training_documents(name))
        expected = "".join(text for text in mix.texts(name) if text not in trained)
        assert corpus.heldout_text(source).decode() == expected != ""


def test_without_held_out_documents_there_are_no_rows(make):
    config = make(a=["one text", "two texts"], heldout=0)
    prepare(config)
    corpus = TokenizedCorpus(Path(config.folder))
    assert corpus.heldout_rows(0, T) == []
    assert corpus.heldout_text(0) == b""


def test_a_context_longer_than_a_source_is_refused(corpus):
    with pytest.raises(ValueError, match=r"'a'.*context 100,000 \(model\.block_size\)"):
        PackedDataset(corpus, WEIGHTS, 0, 100_000)


def test_a_source_just_long_enough_gives_a_sequence(mix, corpus):
    longest = {name: max(map(len, mix.shards(name))) for name in NAMES}
    for name in NAMES:
        weights = {other: float(other == name) for other in NAMES}
        dataset = PackedDataset(corpus, weights, 0, longest[name] - 1)
        assert len(read_row(dataset, 0)) == longest[name]
        with pytest.raises(ValueError, match=f"{name!r}.*context {longest[name]:,}"):
            PackedDataset(corpus, weights, 0, longest[name])


def test_a_source_without_weight_may_be_too_short(mix, corpus):
    length = max(max(map(len, mix.shards(name))) for name in NAMES) - 1
    longest = max(NAMES, key=lambda name: max(map(len, mix.shards(name))))
    dataset = PackedDataset(corpus, {name: float(name == longest) for name in NAMES}, 0, length)
    assert {dataset.sampler.locate(i).source for i in range(1_000)} == {NAMES.index(longest)}


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "x": 1}, {}]
)
def test_a_recipe_with_other_sources_is_refused(corpus, weights):
    with pytest.raises(ValueError, match="holds the sources a, b, c, but") as error:
        PackedDataset(corpus, weights, 0, T)
    assert str(corpus.folder) in str(error.value)
    assert ", ".join(weights) in str(error.value)


def test_a_folder_with_another_tokenizer_is_refused(mix, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(mix.folder, folder)
    train_bpe(mix.texts("a"), 300).save(folder)
    with pytest.raises(ValueError, match=re.escape(f"{folder / 'tokenizer.json'} is not")):
        _ = TokenizedCorpus(folder).tokenizer
