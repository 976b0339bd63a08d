"""A step is one honest mean over everything, and one that is not finite changes nothing."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from gnano.config.train_config import OptimizerConfig
from gnano.data.packed_dataset import Batch
from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import parallelize
from gnano.train.optim.builder import Optimizer
from gnano.train.optim.grad_scaler import GradScaler
from gnano.train.train_step import TrainStep
from gnano.utils.stop_request import StopRequestedError

ALONE = DistContext(torch.device("cpu"))
SHAPE: dict[str, Any] = dict(
    vocab_size=130, n_embd=16, n_layer=2, n_head=2, n_kv_head=1, ffn_hidden=24, block_size=8
)


def make(clip: float = 1e9, scale: GradScaler | None = None, **shape: Any) -> tuple[GPT, TrainStep]:
    torch.manual_seed(0)
    model = GPT(**{**SHAPE, **shape})
    optimizer = Optimizer(model, OptimizerConfig())
    placed = parallelize(model, ALONE, "auto", None)
    return model, TrainStep(
        placed, optimizer, ALONE, tokens_per_step=64, grad_clip=clip, loss_scale=scale
    )


def micro(seed: int, ignored: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(130, (4, 9), generator=draw)
    targets = ids[:, 1:].clone()
    targets.view(-1)[:ignored] = IGNORE_INDEX
    return Batch(ids[:, :-1], targets, None)


def joined(micros: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = [m.inputs_BT for m in micros], [m.targets_BT for m in micros]
    return torch.cat(inputs), torch.cat(targets)


def state(model: GPT, step: TrainStep) -> list[torch.Tensor]:
    tensors = [*model.parameters(), *step.optimizer.state_dict().values()]
    return [tensor.detach().clone() for tensor in tensors]


def test_loss_and_norm_are_those_of_the_mean_over_all_tokens_that_count() -> None:
    """Micro-batches with 32 and 7 tokens that count: their means may not be averaged."""
    micros = [micro(1), micro(2, ignored=25)]
    model, step = make()
    x, y = joined(micros)
    expected = cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE_INDEX)
    grads = torch.autograd.grad(expected, list(model.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm()
    loss, found, skipped, stop = step.run(micros, lr=0.0).tolist()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert found == pytest.approx(norm.item(), rel=1e-4)
    assert (skipped, stop) == (0, 0)


def test_the_step_is_that_of_torch_with_clipping() -> None:
    micros = [micro(1), micro(2)]
    model, step = make(clip=0.1)
    theirs = GPT(**SHAPE)
    theirs.load_state_dict(model.state_dict())
    matrices = [p for p in theirs.parameters() if p.dim() >= 2]
    gains = [p for p in theirs.parameters() if p.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(3):
        x, y = joined(micros)
        cross_entropy(theirs(x).flatten(0, 1), y.flatten()).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        found = step.run(micros, lr=1e-2).tolist()[1]
        assert norm > 0.1  # it is clipped
        assert found == pytest.approx(norm.item(), rel=1e-4)
    for ours, expected in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing_and_says_so(value: float) -> None:
    model, step = make()
    step.run([micro(1)], lr=1e-3)
    gain = model.model.norm.weight
    kept = gain.detach().clone()
    with torch.no_grad():
        gain[3] = value
    before = state(model, step)
    skipped = step.run([micro(2)], lr=1e-3).tolist()[2]
    assert skipped == 1
    for was, tensor in zip(before, state(model, step), strict=True):
        assert torch.equal(was.nan_to_num(7.0), tensor.nan_to_num(7.0))
    with torch.no_grad():
        gain.copy_(kept)
    assert step.run([micro(3)], lr=1e-3).tolist()[2] == 0  # and the next one is a step again


def test_a_step_in_which_nothing_counts_is_a_step_of_zero_loss() -> None:
    """As where a packed batch holds prompts only: 0 / 0 would end the run."""
    model, step = make()
    before = [p.detach().clone() for p in model.parameters()]
    loss, norm, skipped, _ = step.run([micro(1, ignored=32)], lr=0.0).tolist()
    assert (loss, norm, skipped) == (0.0, 0.0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_in_fp16_the_loss_scale_finds_its_size_and_training_goes_on() -> None:
    scale = GradScaler(torch.device("cpu"))
    scale.scale.fill_(2.0**26)  # too large: the first gradients overflow
    model, step = make(scale=scale)
    model.compute_dtype = torch.float16
    figures = [step.run([micro(1), micro(2)], lr=3e-3).tolist() for _ in range(30)]
    skips = sum(row[2] for row in figures)
    assert 0 < skips < 20
    assert scale.scale == 2.0 ** (26 - skips)
    assert figures[-1][0] < figures[0][0] - 0.3
    _, plain = make()
    expected = plain.run([micro(1), micro(2)], lr=0.0).tolist()[1]
    assert figures[int(skips)][1] == pytest.approx(expected, rel=0.02)  # the norm is unscaled


def test_after_enough_good_steps_a_larger_scale_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnano.train.optim.grad_scaler.GROWTH_INTERVAL", 3)
    scale = GradScaler(torch.device("cpu"))
    good, bad = torch.zeros(()), torch.ones(())
    seen = []
    for skipped in (good, good, good, good, bad, good, good, good):
        scale.update(skipped)
        seen.append(float(scale.scale / 2**16))
    assert seen == [1, 1, 2, 2, 1, 1, 1, 2]


def test_nothing_in_a_step_waits_for_the_device() -> None:
    """On the meta device there is nothing to wait for: a `.item()` or an `if` would raise."""
    with torch.device("meta"):
        model = GPT(**SHAPE)
    meta = DistContext(torch.device("meta"))
    step = TrainStep(
        parallelize(model, meta, "auto", None),
        Optimizer(model, OptimizerConfig()),
        meta,
        tokens_per_step=64,
        grad_clip=1.0,
    )
    batch = micro(1).map_tensors(lambda tensor: tensor.to("meta"))
    figures = step.run([batch, batch], lr=1e-3)
    with pytest.raises(RuntimeError, match="meta"):  # it is the reading that waits
        figures.tolist()


def test_a_step_that_is_given_up_half_way_has_changed_nothing() -> None:
    model, step = make()
    step.run([micro(1)], lr=1e-2)
    before, asked = state(model, step), iter([False, True])
    with pytest.raises(StopRequestedError):
        step.run([micro(2), micro(3), micro(4)], lr=1e-2, should_stop=lambda: next(asked))
    assert all(torch.equal(a, b) for a, b in zip(before, state(model, step), strict=True))
    # and the gradient of its first half is not in the next one
    figures = step.run([micro(2), micro(3), micro(4)], lr=1e-2)
    other, again = make()
    again.run([micro(1)], lr=1e-2)
    assert torch.equal(figures, again.run([micro(2), micro(3), micro(4)], lr=1e-2))
    assert all(
        torch.equal(a, b) for a, b in zip(state(model, step), state(other, again), strict=True)
    )


def test_a_step_that_has_begun_its_last_micro_batch_is_brought_to_its_end() -> None:
    _, step = make()
    assert step.run([micro(1)], lr=1e-2, should_stop=lambda: True).tolist()[3] == 1
