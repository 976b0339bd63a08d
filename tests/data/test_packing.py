"""Best-fit packing contains every token once, splits only long documents and fills rows."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnano.data.packing import BestFitPacking, PackingCounts, count_packing, fill_row
from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.model.transformer import GPT

EOT = 60_000  # unlike any other id below

lengths = st.integers(1, 40)  # T: short, so that many documents are longer and many shorter
shards = st.lists(st.integers(1, 60), max_size=80)  # tokens of each document, with its eot


def starts_of(sizes):
    return np.cumsum([0, *sizes])[:-1].astype(np.uint32)


def packed(sizes, length):
    """Return all rows as lists of pieces."""
    packing = BestFitPacking(starts_of(sizes), sum(sizes), length)
    return [packing.row_spans(n) for n in range(packing.row_count)]


def documents(sizes):
    """Return (start, stop) of each document with a target, including the end-of-text after it."""
    starts = [*starts_of(sizes).tolist(), sum(sizes)]
    last = len(sizes) - 1
    ends = [stop + (d < last) for d, stop in enumerate(starts[1:])]
    return [
        (start, stop) for start, stop in zip(starts[:-1], ends, strict=True) if stop > start + 1
    ]


def filled(tokens, pieces, length):
    """Return inputs, targets and segments of one row as lists."""
    inputs, targets = np.full(length, -7, np.int64), np.full(length, -7, np.int64)
    segments = np.full(length, -7, np.int32)
    fill_row(tokens, pieces, inputs, targets, segments, end_of_text=EOT, ignore_index=IGNORE_INDEX)
    return inputs.tolist(), targets.tolist(), segments.tolist()


def place_one_by_one(sizes, capacity):
    """Return the free space of each row after naive best-fit decreasing."""
    left: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [row for row, free in enumerate(left) if free >= size]
        if fitting:
            left[min(fitting, key=lambda row: left[row])] -= size
        else:
            left.append(capacity - size)
    return left


@given(sizes=shards, length=lengths)
def test_every_token_but_the_shards_first_is_a_target_exactly_once(sizes, length):
    tokens = np.arange(sum(sizes))
    targets: Counter[int] = Counter()
    for pieces in packed(sizes, length):
        targets.update(t for t in filled(tokens, pieces, length)[1] if t != IGNORE_INDEX)
    assert targets == Counter(tokens[1:].tolist())


@given(sizes=shards, length=lengths)
def test_a_target_is_predicted_from_earlier_tokens_of_its_document(sizes, length):
    tokens = np.arange(sum(sizes))
    fits = [(a, b) for a, b in documents(sizes) if b - a <= length + 1]
    document_start = {token: a for a, b in fits for token in range(a + 1, b)}
    for pieces in packed(sizes, length):
        inputs, targets, segments = filled(tokens, pieces, length)
        for place, target in enumerate(targets):
            if target == IGNORE_INDEX:
                continue
            seen = [inputs[p] for p in range(place + 1) if segments[p] == segments[place]]
            assert seen == list(range(target - len(seen), target))
            # all of it, where the document fits a row
            assert seen[0] == document_start.get(target, seen[0])


@given(sizes=shards, length=lengths)
def test_a_document_is_split_only_if_it_is_longer_than_a_row(sizes, length):
    pieces = sorted(piece for row in packed(sizes, length) for piece in row)
    expected = []
    for start, stop in documents(sizes):
        while stop - start > length + 1:
            expected.append((start, start + length + 1))
            start += length
        expected.append((start, stop))
    assert pieces == expected


@given(sizes=shards, length=lengths)
def test_rows_are_neither_overfull_nor_empty_and_no_two_could_be_joined(sizes, length):
    totals = sorted(sum(b - a for a, b in row) for row in packed(sizes, length))
    assert all(2 <= total <= length + 1 for total in totals)
    assert len(totals) < 2 or totals[0] + totals[1] > length + 1


@given(sizes=shards, length=lengths)
def test_rows_are_as_full_as_when_pieces_are_placed_one_by_one(sizes, length):
    rows = packed(sizes, length)
    left = [length + 1 - sum(b - a for a, b in row) for row in rows]
    pieces = [b - a for row in rows for a, b in row]
    assert sorted(left) == sorted(place_one_by_one(pieces, length + 1))


@given(sizes=shards, length=lengths)
def test_counts_are_exact_without_placing_a_piece(sizes, length):
    rows = packed(sizes, length)
    tokens = np.arange(sum(sizes))
    targets = [filled(tokens, row, length)[1] for row in rows]
    ends = {b - 1 for _, b in documents(sizes)}
    expected = PackingCounts(
        rows=len(rows),
        targets=sum(t != IGNORE_INDEX for row in targets for t in row),
        boundary_slots=sum(len(row) - 1 for row in rows),
        padding=sum(length + 1 - sum(b - a for a, b in row) for row in rows),
        split_documents=sum(b - a > length + 1 for a, b in documents(sizes)),
        dropped_documents=len(sizes) - len(ends),
    )
    found = count_packing(starts_of(sizes), sum(sizes), length)
    assert found == expected
    assert found.rows * length == found.targets + found.boundary_slots + found.padding


@given(sizes=shards, length=lengths)
def test_a_row_is_its_pieces_and_padding_in_a_separate_segment(sizes, length):
    tokens = np.arange(sum(sizes), dtype=np.uint16)
    for pieces in packed(sizes, length):
        inputs, targets, segments = filled(tokens, pieces, length)
        joined = [t for a, b in pieces for t in range(a, b)]
        numbers = [n for n, (a, b) in enumerate(pieces) for _ in range(a, b)]
        rest = length - len(joined)
        assert inputs == (joined + [EOT] * rest)[:length]
        assert segments == (numbers + [len(pieces)] * rest)[:length]
        if rest > 0:
            assert targets[-rest:] == [IGNORE_INDEX] * rest
        for place, (now, then) in enumerate(pairwise(numbers)):
            assert (targets[place] == IGNORE_INDEX) == (now != then)


def test_packing_of_a_fixed_shard_is_pinned():
    """A resumed run must find the same rows."""
    sizes = [3, 12, 2, 1, 5, 2, 4, 2]  # starts: 0 3 15 17 18 23 25 29
    rows = packed(sizes, 4)
    assert rows == [  # full rows of long documents, an exact fit, then the rests
        [(3, 8)],
        [(7, 12)],
        [(11, 16)],
        [(18, 23)],
        [(25, 30)],
        [(0, 4)],
        [(15, 18), (17, 19)],
        [(22, 24), (23, 26)],
        [(29, 31)],
    ]
    expected = PackingCounts(
        rows=9, targets=30, boundary_slots=2, padding=4, split_documents=2, dropped_documents=0
    )
    assert count_packing(starts_of(sizes), 31, 4) == expected


def test_starts_of_any_integer_type_give_the_same_rows():
    sizes = np.random.default_rng(0).integers(1, 90, 500).tolist()
    starts = starts_of(sizes)
    narrow, wide = (BestFitPacking(s, sum(sizes), 32) for s in (starts, starts.astype(np.int64)))
    assert narrow.row_count == wide.row_count
    assert all(narrow.row_spans(n) == wide.row_spans(n) for n in range(wide.row_count))


def test_a_shard_without_documents_has_no_rows():
    assert packed([], 8) == packed([1], 8) == []
    assert count_packing(starts_of([]), 0, 8) == PackingCounts(0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("n", [-1, 2])
def test_a_row_out_of_range_is_refused(n):
    packing = BestFitPacking(starts_of([4, 5]), 9, 4)
    assert packing.row_count == 2
    with pytest.raises(IndexError, match=f"row {n} of 2"):
        packing.row_spans(n)


def test_a_corpus_of_many_lengths_is_packed_almost_without_padding():
    rng = np.random.default_rng(1)
    sizes = np.clip(rng.lognormal(5.5, 1.2, 20_000), 2, 60_000).astype(int)
    found = count_packing(starts_of(sizes), int(sizes.sum()), 1024)
    assert found.padding / (found.rows * 1024) < 0.001
    assert found.targets / (found.rows * 1024) > 0.995


def test_the_loss_of_packed_rows_equals_that_of_the_documents():
    """The segments keep attention inside the documents."""
    length, rng = 16, np.random.default_rng(2)
    sizes = rng.integers(1, length + 1, 30).tolist()
    tokens = rng.integers(0, 90, sum(sizes)).astype(np.uint16)
    torch.manual_seed(0)
    model = GPT(91, 32, 2, 4, 2, 48, block_size=length)
    rows = packed(sizes, length)
    arrays = [np.empty((len(rows), length), kind) for kind in (np.int64, np.int64, np.int32)]
    for n, pieces in enumerate(rows):
        fill_row(tokens, pieces, *(a[n] for a in arrays), end_of_text=90, ignore_index=IGNORE_INDEX)
    inputs, targets, segments = map(torch.from_numpy, arrays)
    with torch.no_grad():
        together = model.loss(inputs, targets, document_ids_BT=segments).item()
        separate = 0.0
        for start, stop in documents(sizes):
            ids = torch.from_numpy(tokens[start:stop].astype(np.int64))[None]
            separate += model.loss(ids[:, :-1], ids[:, 1:]).item()
    assert together == pytest.approx(separate, rel=1e-5)
