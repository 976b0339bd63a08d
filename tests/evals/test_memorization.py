"""The longest copied span of every sample is found, and it is one of a single document."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import data, integers, lists, one_of, sampled_from

from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals import memorization
from gnano.evals.contamination import ShardRef
from gnano.evals.memorization import MIN_SPAN_TOKENS, CopySearch, find_longest_copies

END = 3  # end-of-text among the ids of the small shards


def longest_common(sample, document):
    """Tokens of the longest span of both, by trying every pair of places."""
    most = 0
    before = [0] * (len(document) + 1)
    for id in sample:
        row = [0]
        for place, other in enumerate(document):
            row.append(before[place] + 1 if id == other else 0)
        most = max(most, *row)
        before = row
    return most


def documents(ids, end):
    """What lies between end-of-text."""
    return [list(part) for ended, part in itertools.groupby(ids, lambda id: id == end) if not ended]


def truth(sample, shards, end):
    pairs = itertools.product(
        documents(sample, end), [text for ids in shards for text in documents(ids, end)]
    )
    most = max((longest_common(*pair) for pair in pairs), default=0)
    return most if most >= MIN_SPAN_TOKENS else 0


# few ids, so that spans are long and overlap; pieces repeated, as a model that is stuck does
ids = lists(sampled_from([0, 0, 1, 2, END]), max_size=60)
stuck = lists(lists(integers(0, 1), min_size=1, max_size=3), max_size=3).map(
    lambda pieces: [id for piece in pieces for id in piece * 15]
)


@settings(deadline=None, max_examples=200)
@given(drawn=data(), shards=lists(one_of(ids, stuck), max_size=4))
def test_the_longest_span_is_that_of_trying_every_place(drawn, shards):
    whole = [id for shard in shards for id in shard]
    samples = drawn.draw(lists(one_of(ids, stuck), min_size=1, max_size=4))
    for _ in range(2 if whole else 0):  # a piece of the shards with something else around it
        start = drawn.draw(integers(0, len(whole)))
        length = drawn.draw(integers(0, 40))
        samples.append([1, 2, *whole[start : start + length], 2, 1])
    search = CopySearch(samples, END)
    part = drawn.draw(integers(1, 30))
    for number, shard in enumerate(shards):
        for first in range(0, len(shard), part):
            piece = shard[first : first + part + search.max_span - 1]
            search.scan(np.array(piece, np.uint16), ShardRef(0, number), first)
    assert search.longest.tolist() == [truth(sample, shards, END) for sample in samples]
    for sample, span in search.found.items():
        copied = shards[span.shard.number][span.position : span.position + span.tokens]
        assert len(copied) == span.tokens == search.longest[sample]
        assert END not in copied
        assert bytes(copied) in bytes(samples[sample])


@pytest.fixture(scope="module")
def corpus(recipe):
    return TokenizedCorpus(Path(recipe.corpus.folder))


@pytest.mark.parametrize("part", [50, memorization.CHUNK_TOKENS])
def test_a_sample_is_traced_to_where_it_was_copied_from(corpus, monkeypatch, part):
    monkeypatch.setattr(memorization, "CHUNK_TOKENS", part)
    draw = random.Random(5)
    end = corpus.tokenizer.end_of_text
    shards = {
        (name, corpus.shards(source)[0].name): corpus.tokens(source, 0).tolist()
        for source, name in enumerate(corpus.names)
    }
    samples = []
    for ids in shards.values():
        start = draw.randrange(len(ids) - 100)
        samples.append([draw.randrange(299) for _ in range(30)] + ids[start : start + 100])
    samples += [corpus.heldout(1)[:100].tolist(), [7] * 100, [], [end] * 50]
    shown: list[str] = []
    found = find_longest_copies(corpus, samples, shown.append)
    for number, (sample, copied) in enumerate(zip(samples, found, strict=True)):
        tokens = truth(sample, shards.values(), end)
        assert (copied.tokens if copied else 0) == tokens
        if copied:
            assert copied.sample == number
            span = shards[copied.source, copied.shard][copied.position :][:tokens]
            assert copied.text == corpus.tokenizer.decode(span)
            assert any(span == sample[i : i + tokens] for i in range(len(sample)))
    assert [bool(copied) for copied in found] == [True, True, True, False, False, False]
    assert shown[-1].startswith("100% of ")


def test_text_is_looked_for_as_the_ids_it_has(corpus):
    text = corpus.tokenizer.decode(
        documents(corpus.tokens(0, 0).tolist(), corpus.tokenizer.end_of_text)[3]
    )
    ids = corpus.tokenizer.encode(text)
    by_text, by_ids = find_longest_copies(corpus, [text, ids])
    assert by_text is not None
    assert by_ids is not None
    assert by_text.text == by_ids.text == text
    assert by_text.tokens == len(ids)


def test_a_document_that_was_held_out_is_not_said_to_be_copied(corpus):
    end = corpus.tokenizer.end_of_text
    heldout = max(documents(corpus.heldout(0).tolist(), end), key=len)
    [copied] = find_longest_copies(corpus, [heldout])
    assert copied is None or copied.tokens < len(heldout) / 2


def test_without_samples_nothing_was_copied(corpus):
    assert find_longest_copies(corpus, []) == []
    assert find_longest_copies(corpus, ["", [5] * (MIN_SPAN_TOKENS - 1)]) == [None, None]
