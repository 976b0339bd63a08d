"""One bad step is passed over; a run that goes on being bad goes back and around the bad data."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.processes import losses
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.config.train_config import StabilityConfig
from gnano.data.sft.sft_dataset import AnyBatch
from gnano.train.data_loader import PrefetchLoader
from gnano.train.stability import StabilityMonitor
from gnano.train.train_step import TrainState
from gnano.train.trainer import train

PATIENCE = StabilityConfig().rollback_after


def rows(pattern: str) -> list[dict[str, object]]:
    return [{"step": n, "skipped": mark == "x"} for n, mark in enumerate(pattern, 1)]


def test_skipped_steps_that_are_not_in_a_row_never_turn_a_run_back() -> None:
    guard = StabilityMonitor(StabilityConfig(), peak_lr=1e-3)
    for row in rows(("x" * (PATIENCE - 1) + ".") * 5):
        guard.observe(row)
        assert not guard.needs_rollback


def test_without_a_checkpoint_to_go_back_to_the_first_bad_step_and_a_remedy_are_named() -> None:
    guard = StabilityMonitor(StabilityConfig(), peak_lr=1e-3)
    for row in rows("..." + "x" * PATIENCE):
        guard.observe(row)
    assert guard.needs_rollback
    with pytest.raises(ValueError, match=r"in step 4 and .*Lower train\.schedule\.peak.*0\.001"):
        guard.skip_data(3 + PATIENCE, was_restored=False)


def test_the_data_of_skipped_steps_is_left_out_and_no_other() -> None:
    guard = StabilityMonitor(StabilityConfig(rollback_after=3, max_rollbacks=2), peak_lr=1e-3)
    for bad in ([5, 6, 7], [10, 11, 12]):  # from 0: in the order of the run's own steps
        guard.consecutive_skips = len(bad)
        guard.skip_data(bad[-1] + 1, was_restored=True)
    taken = [guard.data_index(step) for step in range(15)]
    assert taken == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20]
    again = StabilityMonitor(
        guard.config, guard.peak_lr, json.loads(json.dumps(guard.state_dict()))
    )
    assert [again.data_index(step) for step in range(15)] == taken
    again.consecutive_skips = 3
    with pytest.raises(ValueError, match="after 2 rollbacks"):
        again.skip_data(14, was_restored=True)


class Poison:
    """Makes the loss of some samples infinite: those that a document of the corpus could be in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, samples: set[int]) -> None:
        self.samples, self.after = samples, set[int]()
        take, step = PrefetchLoader.next_micro_batches, TrainState.train_step

        def taking(feed: PrefetchLoader, number: int) -> list[AnyBatch]:
            self.after = set(feed.sample_range(number))
            return take(feed, number)

        def stepping(this: TrainState, *arguments: Any, **named: Any) -> torch.Tensor:
            poisoned = bool(self.after & self.samples)
            weight = this.parallel_model.model.model.norm.weight
            kept = weight.detach().clone()
            if poisoned:
                weight.detach().fill_(torch.inf)
            figures = step(this, *arguments, **named)
            if poisoned:
                weight.detach().copy_(kept)
            return figures

        monkeypatch.setattr(PrefetchLoader, "next_micro_batches", taking)
        monkeypatch.setattr(TrainState, "train_step", stepping)


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def patient(recipe: Recipe) -> Recipe:
    guard = StabilityConfig(rollback_after=3, max_rollbacks=1)
    return with_train(recipe, steps=30, save_every=5, eval_every=0, stability=guard)


def test_a_poisoned_stretch_of_data_is_gone_around_and_named(
    patient: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(patient, tmp_path / "clean")
    per_step = patient.train.tokens_per_step // patient.model.block_size
    Poison(monkeypatch, set(range(12 * per_step, 15 * per_step)))  # of steps 13, 14, 15
    said: list[str] = []
    run = tmp_path / "run"
    result = train(patient, run, notify=lambda text, waiting=False: said.append(text))
    assert result.is_finished and result.step == 30
    back = [event for event in events(run) if event["event"] == "rolled back"]
    assert [(event["step"], event["to"]) for event in back] == [(15, 10)]
    assert back[0]["samples"] == [12 * per_step, 15 * per_step - 1]
    assert any(f"samples {12 * per_step:,} to" in text for text in said), said
    after, before = losses(run), losses(tmp_path / "clean")
    assert all(after[step] == before[step] for step in range(1, 13))  # the same up to there
    assert all(loss is not None for loss, _ in after.values())  # and nothing skipped in the end
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["skipped"] for row in rows) == 3


def test_a_run_that_is_stopped_after_going_around_gives_the_same_as_one_that_is_not(
    patient: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_step = patient.train.tokens_per_step // patient.model.block_size
    Poison(monkeypatch, set(range(12 * per_step, 15 * per_step)))
    train(patient, tmp_path / "straight")

    def interrupt(row: dict[str, Any]) -> None:
        if row["step"] in (14, 17):
            signal.raise_signal(signal.SIGTERM)

    for _ in range(5):
        if train(patient, tmp_path / "stopped", interrupt).is_finished:
            break
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")


def test_bad_data_without_end_ends_the_run_with_a_sentence_and_its_checkpoint(
    patient: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_step = patient.train.tokens_per_step // patient.model.block_size
    Poison(monkeypatch, set(range(12 * per_step, 100 * per_step)))
    with pytest.raises(ValueError, match=r"in step 13 and .* after 1 rollbacks"):
        train(patient, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "step-00000010").is_dir()
    assert events(tmp_path / "run")[-1]["event"] == "failed"


def test_a_spike_is_skipped_when_asked_for(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step with a hundredfold gradient, as a broken document may give."""
    guard = StabilityConfig(spike_threshold=20.0, spike_window=8)
    recipe = with_train(recipe, steps=20, save_every=6, eval_every=0, stability=guard)
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
    # with a resume in the middle the window is remembered, and the same step skipped
    factors.clear()

    def interrupt(row: dict[str, Any]) -> None:
        if row["step"] == 13:
            signal.raise_signal(signal.SIGINT)

    train(recipe, tmp_path / "stopped", interrupt)
    train(recipe, tmp_path / "stopped")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "run")


def test_a_run_of_which_every_step_was_skipped_fails_and_others_say_how_many_were() -> None:
    guard = StabilityMonitor(StabilityConfig(), peak_lr=0.1)
    assert guard.final_message(3) is None
    guard.observe({"skipped": True})
    assert "The last 1 steps were skipped" in str(guard.final_message(3))
    with pytest.raises(ValueError, match=r"All 1 steps were skipped.*lower train.schedule.peak"):
        guard.final_message(1)
