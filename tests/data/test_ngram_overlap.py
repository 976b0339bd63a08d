"""Exactly the runs of 13 words that texts share with items are found."""

import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis.strategies import characters, integers, lists, sampled_from, text

from gnano.data import ngram_overlap
from gnano.data.ngram_overlap import NGRAM_WORDS, NGramIndex


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
    assert len(index) == len(known)
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
        index = NGramIndex([content * 2, "another text", content])
    for number, item in enumerate([content * 2, "another text", content]):
        assert (number in index.items_with_ngrams) == bool(grams(item))
    assert len(index) == len(grams(content * 2) | grams(content))


def test_a_word_may_be_longer_than_a_chunk():
    long = "x" * (5 * ngram_overlap.CHUNK_CHARS)
    item = " ".join([*"abcdefghijkl", long])
    assert [each.words for each in NGramIndex([item]).find([f"0 {item}."])] == [item]
    assert not list(NGramIndex([item]).find([f"{item}x"]))


def test_a_run_does_not_continue_in_the_next_text():
    item = "a b c d e f g h i j k l m n"
    index = NGramIndex([item])
    for cut in range(len(item)):
        found = index.find([item[:cut], item[cut:]])
        assert {tuple(each.words.split()) for each in found} == (
            grams(item[:cut]) | grams(item[cut:])
        )
    assert index.items_with_ngrams == {0}
    assert len(index) == 14 - NGRAM_WORDS + 1


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
    assert len(both) == 2
    for number, words in enumerate((item, other)):
        kinds = [each.ngram_id for each in both.find([f"{words} there"])]
        assert list(both.items_by_ngram(kinds).values()) == [{number}]
