"""Number ranges of configuration fields, and values that are stated in several places."""

import math
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis.strategies import floats

from gnano.utils.validation import (
    ConflictingValuesError,
    Range,
    check_field_ranges,
    require_agreement,
)


@dataclass(frozen=True)
class Settings:
    rate: Annotated[float, Range(0, exclusive_minimum=True)] = 1.0
    share: Annotated[float, Range(0, 1, exclusive_maximum=True)] = 0.5
    count: Annotated[int | None, Range(0)] = None
    label: str = ""

    def __post_init__(self) -> None:
        check_field_ranges(self, "train")


@given(rate=floats())
def test_a_value_is_accepted_exactly_if_it_is_in_its_range(rate):
    if rate > 0 and not math.isinf(rate):
        assert Settings(rate=rate).rate == rate
    else:
        with pytest.raises(ValueError, match=r"train\.rate is .*; it must be "):
            Settings(rate=rate)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rate": -1.0}, "train.rate is -1.0; it must be more than 0."),
        ({"rate": math.nan}, "train.rate is nan; it must be finite."),
        ({"rate": math.inf}, "train.rate is inf; it must be finite."),
        ({"share": 1.0}, "train.share is 1.0; it must be at least 0 and less than 1."),
        ({"rate": 10**400}, "train.rate is 100000000000… (401 digits); it must be finite."),
        ({"count": 1.5}, "train.count is 1.5; it must be a whole number."),
        ({"count": True}, "train.count is True; it must be a number."),
        ({"count": "7"}, "train.count is '7'; it must be a number."),
    ],
)
def test_the_error_names_the_key_the_value_and_the_range(settings, sentence):
    with pytest.raises(ValueError) as refused:
        Settings(**settings)
    assert str(refused.value) == sentence


def test_none_is_accepted_where_the_type_allows_it():
    assert Settings(count=None).count is None


def test_none_states_no_value():
    assert require_agreement("The size", {"here": None, "there": 7, "elsewhere": 7.0}) == 7
    assert require_agreement("The size", {"here": 0, "there": None}) == 0
    assert require_agreement("The size", {"here": None}) is None


def test_a_conflict_names_both_places_and_values():
    with pytest.raises(ConflictingValuesError) as refused:
        require_agreement("The size", {"here": None, "there": 7, "elsewhere": 8})
    assert str(refused.value) == (
        "The size is stated twice, and differently: there is 7, and elsewhere is 8; correct the "
        "one that is wrong."
    )
