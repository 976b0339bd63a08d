"""Epochs skip and repeat no row, and sources occur as often as their weight."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnano.data.sampler import EpochSampler

ROWS = st.lists(st.integers(1, 20), min_size=1, max_size=3)


@given(rows=ROWS, seed=st.integers(0, 5), epoch=st.integers(0, 4))
def test_an_epoch_has_every_row_once_where_weights_are_one(rows, seed, epoch):
    sampler = EpochSampler(rows, [1.0] * len(rows), seed)
    assert sampler.epoch_size == sum(rows)
    seen = Counter(
        sampler.locate(i)[1:]
        for i in range(epoch * sampler.epoch_size, (epoch + 1) * sampler.epoch_size)
    )
    assert seen == {(source, row): 1 for source, count in enumerate(rows) for row in range(count)}


@given(rows=ROWS, seed=st.integers(0, 5), weight=st.sampled_from([0.25, 0.5, 2.0, 1.5]))
def test_a_weight_sets_how_often_a_row_occurs_and_rows_stay_balanced(rows, seed, weight):
    sampler = EpochSampler(rows, [weight] + [1.0] * (len(rows) - 1), seed)
    share = max(round(rows[0] * weight), 1)
    seen: Counter[int] = Counter()
    for epoch in range(4):
        places = [
            sampler.locate(i)
            for i in range(epoch * sampler.epoch_size, (epoch + 1) * sampler.epoch_size)
        ]
        assert {place[0] for place in places} == {epoch}
        assert sum(place[1] == 0 for place in places) == share
        seen.update(row for _, source, row in places if source == 0)
        assert max(seen.values()) - min(seen[row] for row in range(rows[0])) <= 1


def test_epochs_and_seeds_have_different_orders():
    sampler = EpochSampler([50, 50], [1.0, 1.0], 0)
    epochs = [[sampler.locate(i)[1:] for i in range(e * 100, (e + 1) * 100)] for e in range(3)]
    other = EpochSampler([50, 50], [1.0, 1.0], 1)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [other.locate(i)[1:] for i in range(100)]
    assert len({source for source, _ in epochs[0][:20]}) == 2, "sources come one after the other"


def test_samples_can_be_located_in_any_order():
    sampler, again = EpochSampler([7, 3], [1.0, 2.0], 3), EpochSampler([7, 3], [1.0, 2.0], 3)
    forward = [sampler.locate(i) for i in range(60)]
    assert [again.locate(i) for i in reversed(range(60))] == forward[::-1]


def test_sources_without_weight_or_rows_never_occur_and_no_row_is_refused():
    sampler = EpochSampler([4, 0, 5], [0.0, 1.0, 1.0], 0)
    assert {sampler.locate(i)[1] for i in range(20)} == {2}
    with pytest.raises(ValueError, match="no row to train on"):
        EpochSampler([4, 0], [0.0, 1.0], 0)
