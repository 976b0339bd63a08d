"""The packing of examples is first-fit decreasing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnano.data.packing import first_fit_decreasing


def first_fit_by_definition(sizes: list[int], length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        for row in rows:
            if sum(sizes[i] for i in row) + sizes[index] <= length:
                row.append(index)
                break
        else:
            rows.append([index])
    return rows


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(20, 40))
def test_the_packing_is_first_fit_decreasing(sizes: list[int], length: int) -> None:
    assert first_fit_decreasing(sizes, length) == first_fit_by_definition(sizes, length)


@pytest.mark.parametrize("size", [0, 9])
def test_an_example_longer_than_a_row_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"of {size} does not fit"):
        first_fit_decreasing([4, size], 8)
