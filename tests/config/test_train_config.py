"""Token counts that do not divide are refused with the arithmetic."""

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from gnano.config.train_config import TrainConfig


@given(integers(1, 8), integers(1, 64), integers(1, 16), integers(2, 2048))
def test_what_divides_is_split_so_that_every_token_is_computed_once(
    ranks: int, micro_batch: int, times: int, length: int
) -> None:
    tokens = ranks * micro_batch * times * length
    config = TrainConfig(tokens_per_step=tokens, micro_batch_size=micro_batch)
    assert config.accumulation_steps(length, ranks) == times


def test_what_does_not_divide_is_refused_with_the_arithmetic() -> None:
    config = TrainConfig(tokens_per_step=262_144, micro_batch_size=8)
    with pytest.raises(ValueError) as refused:
        config.accumulation_steps(1_024, world_size=3)
    sentence = str(refused.value)
    for part in ("262,144", "3 ranks of 8 × 1,024", "24,576", "10.67", "245,760 or 270,336"):
        assert part in sentence


def test_the_nearest_that_work_do_work() -> None:
    for tokens in (245_760, 270_336):
        config = TrainConfig(tokens_per_step=tokens, micro_batch_size=8)
        assert config.accumulation_steps(1_024, world_size=3) * 3 * 8 * 1_024 == tokens


@pytest.mark.parametrize("name", ["steps", "tokens_per_step", "micro_batch", "save_every", "keep"])
def test_a_count_below_one_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.{name} is 0"):
        TrainConfig(**{name: 0})  # type: ignore[arg-type]
