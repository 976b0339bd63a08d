"""Exactly the runs of words that texts share, and the windows that arrays share, are found."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import characters, integers, lists, sampled_from, text

from gnano.data import ngram_overlap
from gnano.data.ngram_overlap import HASH_BASE, NGRAM_WORDS, NGramIndex, SpanHasher, WindowIndex


def grams(text):
    """Return the runs of 13 words by definition."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}


TOKENS = "a b B c, é É _ - \ud83d 𝒳 ΑΣ\n İ".split(" ")

# a few words only, so that runs are often shared, and often fall short by a word
texts = lists(sampled_from(TOKENS), max_size=40).map(" ".join)


@settings(deadline=None)
@given(items=lists(texts, max_size=5), documents=lists(texts, max_size=5))
def test_the_found_runs_equal_a_brute_force_comparison(items, documents):
    index = NGramIndex(items)
    of_items, of_documents = [[grams(text) for text in row] for row in (items, documents)]
    known = set().union(*of_items)
    assert len(list(index.find(items))) == len(known)
    assert index.items_with_ngrams == {number for number, runs in enumerate(of_items) if runs}
    found = list(index.find(documents))
    assert len({each.ngram_id for each in found}) == len(found)
    shared = known & set().union(*of_documents)
    assert {tuple(each.words.split()) for each in found} == shared
    for each in found:
        run = tuple(each.words.split())
        assert each.text_index == min(n for n, runs in enumerate(of_documents) if run in runs)
        having = {number for number, runs in enumerate(of_items) if run in runs}
        assert index.items_by_ngram([each.ngram_id]) == {each.ngram_id: having}
    everywhere = {number for number, runs in enumerate(of_items) if runs & shared}
    together = index.items_by_ngram([each.ngram_id for each in found])
    assert set().union(*together.values()) == everywhere


@settings(deadline=None)
@given(text(characters(), max_size=300), integers(1, 40))
def test_words_do_not_depend_on_the_chunk_size(content, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram_overlap, "CHUNK_CHARS", part)
        items = [content * 2, "another text", content]
        index = NGramIndex(items)
        found = list(index.find(items))
    for number, item in enumerate(items):
        assert (number in index.items_with_ngrams) == bool(grams(item))
    assert len(found) == len(grams(content * 2) | grams(content))


def test_a_word_may_be_longer_than_a_chunk():
    long = "x" * (5 * ngram_overlap.CHUNK_CHARS)
    item = " ".join([*"abcdefghijkl", long])
    assert [each.words for each in NGramIndex([item]).find([f"0 {item}."])] == [item]
    assert not list(NGramIndex([item]).find([f"{item}x"]))


def test_an_index_can_be_pickled():
    item = " ".join(map(str, range(20)))
    index = pickle.loads(pickle.dumps(NGramIndex(["short", item])))
    kinds = [each.ngram_id for each in index.find([f"x {item}"])]
    assert index.items_by_ngram(kinds) == {kind: {1} for kind in kinds}
    assert len(kinds) == 20 - NGRAM_WORDS + 1


def test_words_with_the_same_hash_are_distinguished(monkeypatch):
    monkeypatch.setattr(
        ngram_overlap, "HASH_BASE", 1
    )  # at first the sequence of letters does not count
    item = "one owl saw two keels of the other ship as it sank"
    other = item.replace("keels", "sleek")
    index = NGramIndex([f"{item} there", "short"])
    assert [each.words for each in index.find([f"{item} there"])] == [f"{item} there"]
    assert not list(index.find([f"{other} there"]))
    both = NGramIndex([f"{item} there", f"{other} there"])
    for number, words in enumerate((item, other)):
        kinds = [each.ngram_id for each in both.find([f"{words} there"])]
        assert list(both.items_by_ngram(kinds).values()) == [{number}]


@settings(deadline=None, max_examples=50)
@given(
    row=lists(integers(0, 2), max_size=60),
    other=lists(integers(0, 2), max_size=60),
    size=integers(1, 9),
    base=sampled_from([1, HASH_BASE]),  # with 1, at first, the sequence does not count
)
def test_the_found_windows_equal_a_brute_force_comparison(row, other, size, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram_overlap, "HASH_BASE", base)
        windows = WindowIndex(np.array(row, np.uint64), size)
    known = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
    known = {window for window in known if 0 not in window}
    assert len(windows.first_positions) == len(known)
    places, kinds = windows.find(np.array(other, np.uint64))
    pairs = [(i, tuple(other[i : i + size])) for i in range(len(other) - size + 1)]
    assert places.tolist() == [i for i, window in pairs if window in known]
    for place, kind in zip(places, kinds, strict=True):
        start = windows.first_positions[kind]
        assert row[start : start + size] == other[place : place + size]


@settings(deadline=None)
@given(lists(integers(0, 2), min_size=1, max_size=40))
def test_spans_have_the_same_hash_exactly_if_they_are_equal(row):
    pairs = [(a, b) for a in range(len(row)) for b in range(a + 1, len(row) + 1)]
    starts, stops = (np.array(column) for column in zip(*pairs, strict=True))
    hashes = SpanHasher(np.array(row, np.uint64) + np.uint64(1)).hash(starts, stops)
    contents = [tuple(row[a:b]) for a, b in pairs]
    of = dict(zip(contents, hashes.tolist(), strict=True))
    assert [of[content] for content in contents] == hashes.tolist()
    assert len(set(of.values())) == len(of)
