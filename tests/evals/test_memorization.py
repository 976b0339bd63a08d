"""The longest copied span of every sample is found, within a single document."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import data, integers, lists, one_of, sampled_from

from gnano.data.packed_dataset import TokenizedCorpus
from gnano.evals import memorization
from gnano.evals.contamination import ShardRef
from gnano.evals.memorization import MIN_SPAN_TOKENS, CopySearch, find_longest_copies

END = 3  # end-of-text among the ids of the small shards


def longest_common(sample, document):
    """Return the length of the longest common span by trying every pair of positions."""
    longest = 0
    before = [0] * (len(document) + 1)
    for id in sample:
        row = [0]
        for place, other in enumerate(document):
            row.append(before[place] + 1 if id == other else 0)
        longest = max(longest, *row)
        before = row
    return longest


def documents(ids, end):
    """Split ids at end-of-text."""
    return [list(part) for is_end, part in itertools.groupby(ids, end.__eq__) if not is_end]


def expected_length(sample, shards, end):
    pairs = itertools.product(
        documents(sample, end), [text for ids in shards for text in documents(ids, end)]
    )
    longest = max((longest_common(*pair) for pair in pairs), default=0)
    return longest if longest >= MIN_SPAN_TOKENS else 0


# few ids, so that spans are long and overlap; repeated pieces, as from a model in a loop
ids = lists(sampled_from([0, 0, 1, 2, END]), max_size=60)
loops = lists(lists(integers(0, 1), min_size=1, max_size=3), max_size=3).map(
    lambda pieces: [id for piece in pieces for id in piece * 15]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(drawn=data(), shards=lists(one_of(ids, loops), max_size=4))
def test_longest_span_equals_that_of_trying_every_position(drawn, shards):
    all_ids = [id for shard in shards for id in shard]
    samples = drawn.draw(lists(one_of(ids, loops), min_size=1, max_size=4))
    for _ in range(2 if all_ids else 0):  # a piece of the shards between other ids
        start = drawn.draw(integers(0, len(all_ids)))
        length = drawn.draw(integers(0, 40))
        samples.append([1, 2, *all_ids[start : start + length], 2, 1])
    search = CopySearch(samples, END)
    chunk_tokens = drawn.draw(integers(1, 30))
    for number, shard in enumerate(shards):
        for first in range(0, len(shard), chunk_tokens):
            chunk = shard[first : first + chunk_tokens + search.max_span - 1]
            search.scan(np.array(chunk, np.uint16), ShardRef(0, number), first)
    assert search.longest.tolist() == [expected_length(sample, shards, END) for sample in samples]
    for sample, (shard, position, tokens) in search.found.items():
        copied = shards[shard.number][position : position + tokens]
        assert len(copied) == tokens == search.longest[sample]
        assert END not in copied
        assert bytes(copied) in bytes(samples[sample])


@pytest.fixture(scope="module")
def corpus(recipe):
    return TokenizedCorpus(Path(recipe.pretraining_data.folder))


@pytest.mark.slow
@pytest.mark.parametrize("chunk_tokens", [50, memorization.CHUNK_TOKENS])
def test_copied_sample_is_traced_to_its_source(corpus, monkeypatch, chunk_tokens):
    monkeypatch.setattr(memorization, "CHUNK_TOKENS", chunk_tokens)
    rng = random.Random(5)
    end = corpus.tokenizer.end_of_text_id
    shards = {
        (name, corpus.shard_infos[source][0].name): corpus.shard_tokens(source, 0).tolist()
        for source, name in enumerate(corpus.source_names)
    }
    samples = []
    for ids in shards.values():
        start = rng.randrange(len(ids) - 100)
        samples.append([rng.randrange(299) for _ in range(30)] + ids[start : start + 100])
    samples += [corpus.heldout_tokens(1)[:100].tolist(), [7] * 100, [], [end] * 50]
    shown: list[str] = []
    found = find_longest_copies(corpus, samples, shown.append)
    for number, (sample, copied) in enumerate(zip(samples, found, strict=True)):
        tokens = expected_length(sample, shards.values(), end)
        assert (copied.tokens if copied else 0) == tokens
        if copied:
            assert copied.sample == number
            span = shards[copied.source, copied.shard][copied.position :][:tokens]
            assert copied.text == corpus.tokenizer.decode(span)
            assert any(span == sample[i : i + tokens] for i in range(len(sample)))
    assert [bool(copied) for copied in found] == [True, True, True, False, False, False]
    assert shown[-1].startswith("100% of ")


def test_text_and_its_ids_give_the_same_span(corpus):
    text = corpus.tokenizer.decode(
        documents(corpus.shard_tokens(0, 0).tolist(), corpus.tokenizer.end_of_text_id)[3]
    )
    ids = corpus.tokenizer.encode(text)
    by_text, by_ids = find_longest_copies(corpus, [text, ids])
    assert by_text is not None
    assert by_ids is not None
    assert by_text.text == by_ids.text == text
    assert by_text.tokens == len(ids)


def test_heldout_document_is_not_reported_as_copied(corpus):
    end = corpus.tokenizer.end_of_text_id
    heldout = max(documents(corpus.heldout_tokens(0).tolist(), end), key=len)
    [copied] = find_longest_copies(corpus, [heldout])
    assert copied is None or copied.tokens < len(heldout) / 2


def test_no_or_short_samples_are_not_copied(corpus):
    assert find_longest_copies(corpus, []) == []
    assert find_longest_copies(corpus, ["", [5] * (MIN_SPAN_TOKENS - 1)]) == [None, None]
