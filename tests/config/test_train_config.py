"""Token counts that do not divide are refused with the arithmetic."""

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from gnano.config.train_config import TrainConfig


@given(integers(1, 8), integers(1, 64), integers(1, 16), integers(2, 2048))
def test_divisible_steps_compute_every_token_once(
    ranks: int, micro_batch: int, count: int, length: int
) -> None:
    tokens = ranks * micro_batch * count * length
    config = TrainConfig(tokens_per_step=tokens, micro_batch_size=micro_batch)
    assert config.accumulation_steps(length, ranks) == count


def test_indivisible_steps_are_refused_with_the_arithmetic() -> None:
    config = TrainConfig(tokens_per_step=262_144, micro_batch_size=8)
    with pytest.raises(ValueError) as error:
        config.accumulation_steps(1_024, world_size=3)
    message = str(error.value)
    for part in ("262,144", "3 ranks of 8 × 1,024", "24,576", "10.67", "245,760 or 270,336"):
        assert part in message


def test_the_suggested_numbers_are_valid() -> None:
    for tokens in (245_760, 270_336):
        config = TrainConfig(tokens_per_step=tokens, micro_batch_size=8)
        assert config.accumulation_steps(1_024, world_size=3) * 3 * 8 * 1_024 == tokens


@pytest.mark.parametrize(
    "name", ["steps", "tokens_per_step", "micro_batch_size", "save_every", "keep_last"]
)
def test_a_count_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.{name} is 0"):
        TrainConfig(**{name: 0})  # type: ignore[arg-type]


def test_a_setting_of_fsdp_is_refused_with_ddp():
    with pytest.raises(ValueError, match=r"train\.reshard_after_forward is 'no'.*\"ddp\""):
        TrainConfig(parallel="ddp", reshard_after_forward="no")
