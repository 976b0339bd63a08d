"""Bad steps are skipped; a run with persistent bad steps rolls back and skips their data."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.processes import losses
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, StabilityConfig, TrainConfig
from gnano.data.sft.sft_dataset import AnyBatch
from gnano.train.distributed.context import DistContext
from gnano.train.logging.metrics_logger import MetricsLogger
from gnano.train.stability import SpikeDetector, check_rollback, describe_last_skips
from gnano.train.train_step import PrefetchLoader, TrainState
from gnano.train.trainer import ignore_message, train

CPU = torch.device("cpu")
PATIENCE = StabilityConfig().rollback_after


def read_steps(logger: MetricsLogger, pattern: str) -> Iterator[int]:
    """Let steps be read, x of them skipped; yield the skips in a row after each of them."""
    for mark in pattern:
        logger.push(torch.tensor([1.0, 1.0, float(mark == "x"), 0.0]), lr=1.0)
        for _ in logger.read_rows():
            yield logger.consecutive_skips


def test_only_skips_in_a_row_are_counted(recipe: Recipe, tmp_path: Path) -> None:
    logger = MetricsLogger(recipe, tmp_path, DistContext(CPU), print, ignore_message)
    counts = list(read_steps(logger, ("x" * (PATIENCE - 1) + ".") * 5))
    assert max(counts) == PATIENCE - 1 and counts[-1] == 0
    assert list(read_steps(logger, "xx.x")) == [1, 2, 0, 1]
    logger.rewind(step=3)
    assert logger.consecutive_skips == 0


def test_rollback_without_checkpoint_fails_with_advice() -> None:
    config = TrainConfig(schedule=LRSchedule(peak=1e-3))
    with pytest.raises(ValueError, match=r"in step 4 and .*Lower train\.schedule\.peak.*0\.001"):
        check_rollback(3, PATIENCE, rollbacks=0, was_restored=False, config=config)


def test_the_number_of_rollbacks_is_limited() -> None:
    config = TrainConfig(stability=StabilityConfig(rollback_after=3, max_rollbacks=2))
    check_rollback(10, 3, rollbacks=1, was_restored=True, config=config)
    with pytest.raises(ValueError, match="after 2 rollbacks"):
        check_rollback(14, 3, rollbacks=2, was_restored=True, config=config)


def test_only_the_data_of_skipped_steps_is_left_out() -> None:
    dataset, config = Mock(block_size=8), TrainConfig(tokens_per_step=16, micro_batch_size=1)
    # of the run's own steps, in their order
    loader = PrefetchLoader(dataset, DistContext(CPU), config, skipped_ranges=[[5, 3], [10, 3]])
    taken = [loader.sample_range(step).start // 2 for step in range(15)]
    assert taken == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20]
    assert loader.sample_range(5) == range(16, 18)


class Poison:
    """Makes the loss of steps with certain samples infinite."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, samples: set[int]) -> None:
        self.samples, self.current = samples, set[int]()
        next_batches, step = PrefetchLoader.next_micro_batches, TrainState.train_step

        def next_micro_batches(loader: PrefetchLoader, number: int) -> list[AnyBatch]:
            self.current = set(loader.sample_range(number))
            return next_batches(loader, number)

        def train_step_with_poison(this: TrainState, *arguments: Any, **named: Any) -> torch.Tensor:
            poisoned = bool(self.current & self.samples)
            weight = this.parallel_model.model.model.norm.weight
            original = weight.detach().clone()
            if poisoned:
                weight.detach().fill_(torch.inf)
            metrics = step(this, *arguments, **named)
            if poisoned:
                weight.detach().copy_(original)
            return metrics

        monkeypatch.setattr(PrefetchLoader, "next_micro_batches", next_micro_batches)
        monkeypatch.setattr(TrainState, "train_step", train_step_with_poison)


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def short_recipe(recipe: Recipe) -> Recipe:
    stability = StabilityConfig(rollback_after=3, max_rollbacks=1)
    return with_train(recipe, steps=30, save_every=5, eval_every=0, stability=stability)


@pytest.mark.slow
def test_bad_data_is_skipped_and_reported(
    short_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(short_recipe, tmp_path / "clean")
    per_step = short_recipe.train.tokens_per_step // short_recipe.model.block_size
    Poison(monkeypatch, set(range(12 * per_step, 15 * per_step)))  # of steps 13, 14, 15
    messages: list[str] = []
    run = tmp_path / "run"
    result = train(short_recipe, run, notify=lambda text, waiting=False: messages.append(text))
    assert result.is_finished and result.step == 30
    back = [event for event in events(run) if event["event"] == "rolled back"]
    assert [(event["step"], event["to"]) for event in back] == [(15, 10)]
    assert back[0]["samples"] == [12 * per_step, 15 * per_step - 1]
    assert any(f"samples {12 * per_step:,} to" in text for text in messages), messages
    after, before = losses(run), losses(tmp_path / "clean")
    assert all(after[step] == before[step] for step in range(1, 13))
    assert all(loss is not None for loss, _ in after.values())  # no step is skipped in the end
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["skipped"] for row in rows) == 3


@pytest.mark.slow
def test_resume_after_rollback_is_identical(
    short_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_step = short_recipe.train.tokens_per_step // short_recipe.model.block_size
    Poison(monkeypatch, set(range(12 * per_step, 15 * per_step)))
    train(short_recipe, tmp_path / "reference")

    def interrupt(row: dict[str, Any]) -> None:
        if row["step"] in (14, 17):
            signal.raise_signal(signal.SIGTERM)

    for _ in range(5):
        if train(short_recipe, tmp_path / "stopped", interrupt).is_finished:
            break
    assert losses(tmp_path / "stopped") == losses(tmp_path / "reference")


@pytest.mark.slow
def test_endless_bad_data_fails_and_keeps_the_checkpoint(
    short_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_step = short_recipe.train.tokens_per_step // short_recipe.model.block_size
    Poison(monkeypatch, set(range(12 * per_step, 100 * per_step)))
    with pytest.raises(ValueError, match=r"in step 13 and .* after 1 rollbacks"):
        train(short_recipe, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "step-00000010").is_dir()
    assert events(tmp_path / "run")[-1]["event"] == "failed"


@pytest.mark.slow
def test_spike_is_skipped_if_configured(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step with a hundredfold gradient, as a broken document may cause."""
    stability = StabilityConfig(spike_threshold=20.0, spike_window=8)
    recipe = with_train(recipe, steps=20, save_every=6, eval_every=0, stability=stability)
    train_step = TrainState.train_step
    factors: list[int] = []

    def train_step_with_spike(this: TrainState, *arguments: Any) -> torch.Tensor:
        factor = 100 if len(factors) == 14 else 1
        factors.append(factor)
        hooks = [p.register_hook(lambda grad: grad * factor) for p in this.model.parameters()]
        metrics = train_step(this, *arguments)
        for hook in hooks:
            hook.remove()
        return metrics

    monkeypatch.setattr(TrainState, "train_step", train_step_with_spike)
    train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["skipped"]] == [15]
    assert rows[14]["spike"] is True
    # a resumed run has the same window and skips the same step
    factors.clear()

    def interrupt(row: dict[str, Any]) -> None:
        if row["step"] == 13:
            signal.raise_signal(signal.SIGINT)

    train(recipe, tmp_path / "stopped", interrupt)
    train(recipe, tmp_path / "stopped")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "run")


def test_skips_at_the_end_are_reported() -> None:
    config = TrainConfig(schedule=LRSchedule(peak=0.1))
    assert "The last 1 steps were skipped" in describe_last_skips(1, 3, config)
    with pytest.raises(ValueError, match=r"All 1 steps were skipped.*lower train.schedule.peak"):
        describe_last_skips(1, 1, config)


NO = torch.tensor(False)


def detector_after(values: list[float], window: int = 9, threshold: float = 6.0) -> SpikeDetector:
    detector = SpikeDetector(window, threshold, CPU)
    for value in values:
        detector.update(torch.tensor([value, value]).double(), NO)
    return detector


def is_spike(detector: SpikeDetector, loss: float, norm: float) -> bool:
    return bool(detector.is_spike(torch.tensor([loss, norm]).double()))


@given(
    st.lists(st.floats(0.5, 50), min_size=9, max_size=9),
    st.floats(0.1, 500),
    st.floats(3, 20),
)
def test_z_score_matches_numpy(values: list[float], value: float, threshold: float) -> None:
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(np.array(values) - middle))), 1e-3 * middle)
    score = (value - middle) / spread
    if abs(score - threshold) < 1e-6 * threshold:
        return  # within rounding
    assert is_spike(detector_after(values, threshold=threshold), value, 0.1) == (score > threshold)


def test_loss_and_norm_are_both_checked() -> None:
    detector = detector_after([3.0, 3.1, 2.9, 3.0, 3.05, 2.95, 3.0, 3.1, 2.9])
    assert not is_spike(detector, 3.2, 3.2)
    assert is_spike(detector, 9.0, 3.0) and is_spike(detector, 3.0, 9.0)
    assert not is_spike(detector, 0.1, 0.1)  # low values are fine


@pytest.mark.parametrize("seen", [0, 1, 8])
def test_no_spike_before_the_window_is_full(seen: int) -> None:
    assert not is_spike(detector_after([3.0] * seen), 1e9, 1e9)


def test_skipped_step_does_not_enter_the_window() -> None:
    detector = detector_after([3.0, 3.1] * 5)
    before = detector.history.clone()
    detector.update(torch.tensor([99.0, 99.0]).double(), torch.tensor(True))
    assert torch.equal(detector.history, before)
