"""A number outside its range is refused with the key's name, however it came in."""

import math
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis.strategies import floats

from gnano.utils.ranges import Range, check_ranges


@dataclass(frozen=True)
class Settings:
    rate: Annotated[float, Range(0, above=True)] = 1.0
    share: Annotated[float, Range(0, 1, below=True)] = 0.5
    label: str = ""

    def __post_init__(self) -> None:
        check_ranges(self, "train")


@given(rate=floats())
def test_a_value_is_taken_exactly_if_it_is_in_its_range(rate):
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
    ],
)
def test_the_sentence_names_the_key_the_value_and_the_range(settings, sentence):
    with pytest.raises(ValueError) as refused:
        Settings(**settings)
    assert str(refused.value) == sentence
