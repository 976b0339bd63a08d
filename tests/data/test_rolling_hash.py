"""Exactly the windows that two arrays share are found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from

from gnano.data import rolling_hash
from gnano.data.rolling_hash import HASH_BASE, SpanHasher, WindowIndex


@settings(deadline=None, max_examples=50)
@given(
    row=lists(integers(0, 2), max_size=60),
    other=lists(integers(0, 2), max_size=60),
    size=integers(1, 9),
    base=sampled_from([1, HASH_BASE]),  # with 1, at first, the sequence does not count
)
def test_the_found_windows_equal_a_brute_force_comparison(row, other, size, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling_hash, "HASH_BASE", base)
        windows = WindowIndex(np.array(row, np.uint64), size)
    known = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
    known = {window for window in known if 0 not in window}
    assert len(windows) == len(known)
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
