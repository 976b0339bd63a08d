"""A training step is one mean over all targets, and a step that is not finite changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, TrainConfig
from gnano.data.packed_dataset import Batch
from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.optim.optimizer import GradScaler
from gnano.train.train_step import TrainState
from gnano.utils.stop_request import StopRequestedError

MODEL = ModelConfig(
    vocab_size=130, n_embd=16, n_layer=2, n_head=2, n_kv_head=1, ffn_hidden=24, block_size=8
)
NO_LR = 1e-30


def make_state(
    lr: float = 1e-2, grad_clip: float = 1e9, precision: str = "fp32", device: str = "cpu"
) -> TrainState:
    config = TrainConfig(
        tokens_per_step=64,
        micro_batch_size=4,
        grad_clip=grad_clip,
        precision=precision,  # type: ignore[arg-type]
        compile="no",
        schedule=LRSchedule(peak=lr, warmup=0, floor=1.0),
    )
    recipe = Recipe(model=MODEL, train=config)
    return TrainState(recipe, Path("no run"), DistContext(torch.device(device)))


def make_batch(seed: int, ignored: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(130, (4, 9), generator=generator)
    targets = ids[:, 1:].clone()
    targets.view(-1)[:ignored] = IGNORE_INDEX
    return Batch(ids[:, :-1], targets, None)


def concatenate(batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([b.inputs_BT for b in batches]), torch.cat([b.targets_BT for b in batches])


def tensors_of(state: TrainState) -> list[torch.Tensor]:
    tensors = [*state.model.parameters(), *state.optimizer.state.values()]
    return [tensor.detach().clone() for tensor in tensors]


def test_loss_and_norm_are_of_the_mean_over_all_targets() -> None:
    """Micro-batches with 32 and 7 targets that count: their means may not be averaged."""
    batches = [make_batch(1), make_batch(2, ignored=25)]
    state = make_state(NO_LR)
    x, y = concatenate(batches)
    expected = cross_entropy(state.model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE_INDEX)
    grads = torch.autograd.grad(expected, list(state.model.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm()
    loss, grad_norm, skipped, stop = state.train_step(batches, 0).tolist()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert grad_norm == pytest.approx(norm.item(), rel=1e-4)
    assert (skipped, stop) == (0, 0)


def test_step_with_clipping_matches_torch() -> None:
    batches = [make_batch(1), make_batch(2)]
    state = make_state(grad_clip=0.1)
    reference = GPT.from_config(MODEL)
    reference.load_state_dict(state.model.state_dict())
    matrices = [p for p in reference.parameters() if p.dim() >= 2]
    gains = [p for p in reference.parameters() if p.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(3):
        x, y = concatenate(batches)
        cross_entropy(reference(x).flatten(0, 1), y.flatten()).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        grad_norm = state.train_step(batches, step).tolist()[1]
        assert norm > 0.1  # it is clipped
        assert grad_norm == pytest.approx(norm.item(), rel=1e-4)
    for ours, expected in zip(state.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_step_is_skipped_and_changes_nothing(value: float) -> None:
    state = make_state(1e-3)
    state.train_step([make_batch(1)], 0)
    gain = state.model.model.norm.weight
    original = gain.detach().clone()
    with torch.no_grad():
        gain[3] = value
    before = tensors_of(state)
    assert state.train_step([make_batch(2)], 1).tolist()[2] == 1
    for old, new in zip(before, tensors_of(state), strict=True):
        assert torch.equal(old.nan_to_num(7.0), new.nan_to_num(7.0))
    with torch.no_grad():
        gain.copy_(original)
    assert state.train_step([make_batch(3)], 2).tolist()[2] == 0


def test_step_without_targets_has_zero_loss() -> None:
    """A packed batch may hold prompts only; 0 / 0 would end the run."""
    state = make_state(NO_LR)
    before = [p.detach().clone() for p in state.model.parameters()]
    loss, norm, skipped, _ = state.train_step([make_batch(1, ignored=32)], 0).tolist()
    assert (loss, norm, skipped) == (0.0, 0.0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_fp16_loss_scale_adapts_and_training_continues() -> None:
    state = make_state(3e-3, precision="fp16")
    assert state.loss_scale is not None
    state.loss_scale.scale.fill_(2.0**26)  # too large: the first gradients overflow
    batches = [make_batch(1), make_batch(2)]
    rows = [state.train_step(batches, step).tolist() for step in range(30)]
    skips = sum(row[2] for row in rows)
    assert 0 < skips < 20
    assert state.loss_scale.scale == 2.0 ** (26 - skips)
    assert rows[-1][0] < rows[0][0] - 0.3
    expected = make_state(NO_LR).train_step(batches, 0).tolist()[1]
    assert rows[int(skips)][1] == pytest.approx(expected, rel=0.02)  # the norm is unscaled


def test_loss_scale_grows_after_enough_good_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnano.train.optim.optimizer.GROWTH_INTERVAL", 3)
    scaler = GradScaler(torch.device("cpu"))
    good, bad = torch.zeros(()), torch.ones(())
    scales = []
    for skipped in (good, good, good, good, bad, good, good, good):
        scaler.update(skipped)
        scales.append(float(scaler.scale / 2**16))
    assert scales == [1, 1, 2, 2, 1, 1, 1, 2]


def test_step_never_waits_for_the_device() -> None:
    """On the meta device a `.item()` or an `if` on a tensor would raise."""
    state = make_state(device="meta")
    batch = make_batch(1).map_tensors(lambda tensor: tensor.to("meta"))
    metrics = state.train_step([batch, batch], 0)
    with pytest.raises(RuntimeError, match="meta"):  # only reading the metrics waits
        metrics.tolist()


def test_abandoned_step_changes_nothing() -> None:
    state = make_state()
    state.train_step([make_batch(1)], 0)
    before, stops = tensors_of(state), iter([False, True])
    batches = [make_batch(2), make_batch(3), make_batch(4)]
    with pytest.raises(StopRequestedError):
        state.train_step(batches, 1, should_stop=lambda: next(stops))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(state), strict=True))
    # the gradient of its first part is not in the next step
    metrics = state.train_step(batches, 1)
    reference = make_state()
    reference.train_step([make_batch(1)], 0)
    assert torch.equal(metrics, reference.train_step(batches, 1))
    pairs = zip(tensors_of(state), tensors_of(reference), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_stop_during_the_last_micro_batch_completes_the_step() -> None:
    assert make_state().train_step([make_batch(1)], 0, should_stop=lambda: True).tolist()[3] == 1
