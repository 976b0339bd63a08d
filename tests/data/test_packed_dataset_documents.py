"""Rows of complete documents, and document masks, in the packed dataset."""

from collections import Counter

import numpy as np
import pytest

from gnano.data.inspection import inspect_sample
from gnano.data.packed_dataset import IGNORE_INDEX, PackedDataset, TokenizedCorpus

T = 48
WEIGHTS = {"a": 0.0, "b": 1.0, "c": 0.0}


@pytest.fixture(scope="module")
def corpus(mix):
    return TokenizedCorpus(mix.folder)


@pytest.fixture(scope="module")
def packed(corpus):
    return PackedDataset(corpus, WEIGHTS, 3, T, "best-fit", document_attention_mask=True)


def epoch(dataset):
    """Yield the samples of the first epoch, one per batch."""
    i = 0
    while dataset.sampler.locate(i).epoch == 0:
        yield i, dataset.read_batch([i])
        i += 1


def test_packed_every_token_but_a_shards_first_is_a_target_once_an_epoch(mix, packed):
    targets: Counter[int] = Counter()
    counted = padding = 0
    for _, batch in epoch(packed):
        kept = batch.targets_BT[batch.targets_BT != IGNORE_INDEX]
        targets.update(kept.tolist())
        counted += len(kept)
        padding += T - len(kept)
    assert targets == Counter(t for tokens in mix.shards("b") for t in tokens[1:].tolist())
    stats = PackedDataset(packed.corpus, WEIGHTS, 3, T, "best-fit").packing_stats()
    slots = sum(packed.rows_per_shard[1]) * T
    assert counted + padding == slots < stats.target_slots


def test_packed_only_documents_longer_than_a_row_are_split(mix, packed):
    end = mix.tokenizer.end_of_text_id
    expected = Counter(
        tuple(part.tolist())
        for tokens in mix.shards("b")
        for part in np.split(tokens, np.flatnonzero(tokens == end))[1:]
        if len(part) < T  # with the end-of-text after it, no longer than a row
    )
    found: Counter[tuple[int, ...]] = Counter()
    for _, (inputs, _, segments) in epoch(packed):
        for segment in segments.unique():
            ids = inputs[segments == segment].tolist()
            if ids[0] == end:
                # the last id is the end-of-text of the next document, as a target
                found[tuple(ids[:-1] if len(ids) > 1 and ids[-1] == end else ids)] += 1
    assert not expected - found


def test_packed_no_target_is_from_another_document(packed):
    for _, (inputs_BT, targets_BT, segments_BT) in epoch(packed):
        for inputs, targets, segments in zip(
            inputs_BT.tolist(), targets_BT.tolist(), segments_BT.tolist(), strict=True
        ):
            for t in range(T - 1):
                if targets[t] != IGNORE_INDEX:
                    assert segments[t] == segments[t + 1], "a target in another segment"
                    assert targets[t] == inputs[t + 1]


@pytest.mark.parametrize("packing", ["stream", "best-fit"])
def test_segments_exist_only_with_a_document_mask(corpus, packing):
    assert PackedDataset(corpus, WEIGHTS, 3, T, packing).read_batch(range(9)).segments_BT is None


def test_in_a_stream_each_end_of_text_starts_a_segment(mix, corpus):
    end = mix.tokenizer.end_of_text_id
    inputs, _, segments = PackedDataset(
        corpus, WEIGHTS, 3, T, document_attention_mask=True
    ).read_batch(range(40))
    assert segments is not None
    plain = PackedDataset(corpus, WEIGHTS, 3, T).read_batch(range(40))
    assert inputs.equal(plain.inputs_BT)
    borders = 0
    for row, numbers in zip(inputs.tolist(), segments.tolist(), strict=True):
        for t in range(1, T):
            assert (numbers[t] != numbers[t - 1]) == (row[t] == end)
            borders += row[t] == end
    assert borders > 10


@pytest.mark.parametrize("packing", ["stream", "best-fit"])
def test_an_inspected_sample_equals_the_training_sample(mix, corpus, packing):
    dataset = PackedDataset(corpus, {"a": 40, "b": 25, "c": 35}, 7, T, packing)
    texts = {name: [*mix.training_documents(name)] for name in "abc"}
    for i in range(0, 300, 7):
        index = dataset.sampler.locate(i)
        documents = inspect_sample(dataset, index)
        inputs, targets, _ = dataset.read_batch([i])
        ids = [int(t) for piece in documents for t in piece.ids]
        seen = {*inputs[0].tolist(), *targets[0].tolist()} - {IGNORE_INDEX}
        assert set(ids) <= seen
        first = documents[0].ids.tolist()
        assert inputs[0, : len(first)].tolist() == first[:T]
        for piece in documents:
            text = corpus.tokenizer.decode(piece.ids.tolist()).strip("\ufffd")
            assert any(text in one for one in texts[corpus.source_names[index.source]])
            assert piece.offset + len(piece.ids) <= piece.document_tokens
