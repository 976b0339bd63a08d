"""The merge keeps the first of equal documents, compared with a brute-force search."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from
from tests.data.conftest import numbered, parts, some_texts

from gnano.data.manifest import Manifest, is_heldout
from gnano.data.prepare.merge_shards import DedupIndex
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import Document, read_texts

few = sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1])  # so that many are equal
many = integers(0, 2**64 - 1)


@settings(deadline=None)
@given(groups=lists(lists(few | many, max_size=30), max_size=12))
def test_a_key_is_new_exactly_if_it_was_not_added_before(groups):
    seen, truth = DedupIndex(), set()
    for keys in groups:
        fresh = seen.find_new(np.array(keys, np.uint64))
        expected = []
        kept = set()
        for key in keys:
            expected.append(key not in truth and key not in kept)
            kept.add(key)
        assert fresh.tolist() == expected
        seen.add(np.array(keys, np.uint64)[fresh])
        truth |= kept


def test_the_index_has_few_sorted_runs():
    seen = DedupIndex()
    for n in range(1_000):
        seen.add(np.arange(n * 10, n * 10 + 10, dtype=np.uint64))
    assert sum(map(len, seen.sorted_runs)) == 10_000
    assert len(seen.sorted_runs) <= np.log2(10_000)
    assert all((np.diff(run) > 0).all() for run in seen.sorted_runs)


@pytest.fixture
def repeated(make, small_tasks):
    """Three sources with duplicates within files, across files and across sources."""
    rng = random.Random(1)
    common = some_texts("xyz", 60)

    def files(letters, count):
        texts = some_texts(letters, 120) + rng.sample(common, 40)
        rng.shuffle(texts)
        found = parts(texts + rng.sample(texts, 30), count)
        found["0.jsonl"] += found["0.jsonl"][:10]  # equal documents in one file
        return found

    content = {"a": files("abcdefgh", 4), "b": files("ijklmnop", 3), "c": files("abcxyz", 2)}
    return make(heldout=0.3, shard_tokens=1_500, **content), content


def brute_force(manifest, files, is_held):
    """Return each source's training and held-out documents, and its number of duplicates."""
    seen = set()
    kept: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in files}
    dropped = dict.fromkeys(files, 0)
    for name, task in manifest.plan.iter_tasks():
        documents = [
            (file.name, text)
            for file in manifest.plan.sources[name].tasks[task]
            for text in files[name][file.name]
        ]
        for held in (True, False):  # a text on both sides is kept from training
            for file, text in documents:
                if is_held(file, text) != held:
                    continue
                if text in seen:
                    dropped[name] += 1
                else:
                    seen.add(text)
                    kept[name][held].append(text)
    return kept, dropped


def test_the_first_of_equal_documents_in_the_plans_order_is_kept(repeated, prepared):
    config, files = repeated
    done = prepared(config)
    manifest = Manifest.load(done.folder)
    kept, dropped = brute_force(manifest, files, lambda _, text: is_heldout(Document(text), 0.3))
    for name in files:
        assert done.training_documents(name) == kept[name][False]
        assert done.heldout_documents(name) == kept[name][True]
        assert manifest.sources[name].dropped["repeated"] == dropped[name] > 30
    everything = [text for both in kept.values() for side in both for text in side]
    assert len(everything) == len(set(everything))


def test_a_text_held_out_in_an_earlier_group_is_never_training_text(
    repeated, prepared, monkeypatch
):
    """A group is in one split; so equal texts of two groups may be in different splits."""
    config, files = repeated

    def grouped(source, paths):
        for path in paths:
            for text in read_texts(path, "text"):
                yield Document(text, split_group=path.name)

    monkeypatch.setattr("gnano.data.prepare.worker_pool.read_task_documents", grouped)
    done = prepared(config)
    manifest = Manifest.load(done.folder)
    sides = {
        f"{n}.jsonl": is_heldout(Document("", split_group=f"{n}.jsonl"), 0.3) for n in range(4)
    }
    assert set(sides.values()) == {False, True}
    kept, dropped = brute_force(manifest, files, lambda file, _: sides[file])
    trained, held = set(), set()
    for name in files:
        assert done.training_documents(name) == kept[name][False]
        assert done.heldout_documents(name) == kept[name][True]
        assert manifest.sources[name].dropped["repeated"] == dropped[name]
        trained |= set(done.training_documents(name))
        held |= set(done.heldout_documents(name))
    assert trained and held and not trained & held


def test_a_text_in_both_splits_of_one_task_is_held_out(make, prepared, monkeypatch):
    """If one file has a text in both splits, it is not training text."""
    texts = numbered(0, 40)

    def grouped(source, paths):
        for text in texts:  # first in a group that is trained on, then in one held out
            yield Document(text, split_group=trained)
            yield Document(text, split_group=held)

    groups = [f"group {n}" for n in range(40)]
    held = next(g for g in groups if is_heldout(Document("", split_group=g), 0.3))
    trained = next(g for g in groups if not is_heldout(Document("", split_group=g), 0.3))
    monkeypatch.setattr("gnano.data.prepare.worker_pool.read_task_documents", grouped)
    config = make(a=["any"], heldout=0.3)
    with pytest.raises(ValueError, match="40 repeated, 40 of them held out"):
        prepare(config)


def test_counts_after_the_merge_are_those_of_the_files(repeated, prepared):
    """Tokens, documents, bytes and lengths are those of the final files, not of the drafts."""
    config, _ = repeated
    done = prepared(config)
    manifest = Manifest.load(done.folder)
    for name, source in manifest.sources.items():
        texts = done.training_documents(name)
        assert source.documents == len(texts)
        assert source.bytes == sum(len(text.encode()) for text in texts)
        assert source.tokens == sum(map(len, done.shards(name)))
        assert source.heldout_tokens == len(done.heldout(name))
        lengths = [len(done.tokenizer.encode(text)) + 1 for text in texts]
        histogram = [sum(2**n <= length < 2 ** (n + 1) for length in lengths) for n in range(32)]
        assert np.sum([task.lengths for task in source.tasks], axis=0).tolist() == histogram
        out = sum(source.dropped.values())
        assert source.read == len(texts) + len(done.heldout_documents(name)) + out


def test_a_task_of_duplicates_only_has_no_shard(make, prepared, small_tasks):
    texts = numbered(0, 60)
    done = prepared(make(a={f"{n}.jsonl": texts for n in range(3)}, heldout=0.2))
    source = Manifest.load(done.folder).sources["a"]
    assert [len(task.shards) for task in source.tasks] == [1, 0, 0]
    assert [task.heldout is None for task in source.tasks] == [False, True, True]
    assert source.dropped["repeated"] == 120
    assert {p.name for p in (done.folder / "a").iterdir()} == {
        "00000-000.tokens", "00000-000.docs", "00000-heldout.tokens", "00000-heldout.docs",
        "00000.keys", "00001.keys", "00002.keys",
    }  # fmt: skip


def test_almost_equal_documents_have_different_keys(make, prepared):
    texts = ["a b", "a  b", "a b ", "A b", "a b.", "a\nb", "a\u00a0b", "é", "e\u0301"]
    done = prepared(make(a=texts, heldout=0))
    assert done.training_documents("a") == texts
