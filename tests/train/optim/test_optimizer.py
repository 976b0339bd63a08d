"""AdamW equals torch's, only matrices decay, and the properties of every optimizer."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gnano.config.train_config import OptimizerConfig
from gnano.model.transformer import GPT
from gnano.train.optim.optimizer import Optimizer

SHAPE = dict(
    vocab_size=130, n_embd=16, n_layer=2, n_head=2, n_kv_head=1, ffn_hidden=24, block_size=8
)
KINDS = pytest.mark.parametrize("kind", ["adamw", "muon"])


def new_model() -> GPT:
    torch.manual_seed(0)
    return GPT(**SHAPE)


def set_gradients(model: GPT, seed: int, factor: float = 1.0) -> None:
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p) * factor
    with torch.no_grad():
        model.lm_head.weight.grad[130:] = 0  # type: ignore[index]


def copy_all(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def full_state(model: GPT, optimizer: Optimizer) -> dict[str, Tensor]:
    return copy_all({**dict(model.named_parameters()), **optimizer.state})


def as_bytes(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def torch_adamw(model: GPT, **settings: Any) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.dim() == 2]
    gains = [p for p in parameters if p.dim() == 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, fused=True, **settings)


def test_adamw_equals_torch_bit_for_bit():
    ours, theirs = new_model(), new_model()
    optimizer = Optimizer(ours, OptimizerConfig(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3))
    reference = torch_adamw(theirs, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    for step, lr in enumerate([0.01, 0.02, 0.005]):
        for model in (ours, theirs):
            set_gradients(model, seed=step)
        optimizer.step(lr)
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
    assert as_bytes(copy_all(dict(ours.named_parameters()))) == as_bytes(
        copy_all(dict(theirs.named_parameters()))
    )
    state = {
        f"{name}/{kind}": tensor
        for name, p in theirs.named_parameters()
        for kind, tensor in reference.state[p].items()
    }
    assert as_bytes(copy_all(optimizer.state)) == as_bytes(state)


def test_two_steps_of_adamw_equal_the_formula():
    model = new_model().double()
    config = OptimizerConfig(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)
    optimizer = Optimizer(model, config)
    p = dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"]
    expected = p.detach().clone()
    m = v = torch.zeros_like(expected)
    for t, lr in ((1, 0.01), (2, 0.02)):
        set_gradients(model, seed=t)
        assert p.grad is not None
        g = p.grad.clone()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-6)
        expected = expected * (1 - lr * 0.3) - lr * step
        optimizer.step(lr)
    torch.testing.assert_close(p.detach(), expected)


def test_only_matrices_decay_in_adamw():
    model = new_model()
    before = copy_all(dict(model.named_parameters()))
    optimizer = Optimizer(model, OptimizerConfig(weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    for name, p in model.named_parameters():
        shrink = 1.0 if "norm" in name else 1 - 0.1 * 0.5
        torch.testing.assert_close(p.detach(), before[name] * shrink)


def test_embedding_and_head_have_their_own_learning_rates():
    plain, changed = new_model(), new_model()
    before = copy_all(dict(plain.named_parameters()))
    configs = OptimizerConfig(), OptimizerConfig(embedding_lr_scale=3.0, head_lr_scale=0.5)
    for model, config in zip((plain, changed), configs, strict=True):
        set_gradients(model, seed=1)
        Optimizer(model, config).step(0.01)
    moved = dict(changed.named_parameters())
    for name, p in plain.named_parameters():
        times = {"model.embed_tokens.weight": 3.0, "lm_head.weight": 0.5}.get(name, 1.0)
        expected = before[name] + times * (p.detach() - before[name])
        torch.testing.assert_close(moved[name].detach(), expected, rtol=1e-4, atol=1e-7)


@KINDS
def test_a_divisor_equals_a_smaller_gradient(kind):
    ours, theirs = new_model(), new_model()
    config = OptimizerConfig(kind=kind, eps=1e-3)  # with a small ε AdamW hardly sees the scale
    optimizer, reference = Optimizer(ours, config), Optimizer(theirs, config)
    for step in range(3):
        set_gradients(ours, seed=step)
        set_gradients(theirs, seed=step, factor=1 / 64)
        optimizer.step(0.01, grad_divisor=torch.tensor(64.0))
        reference.step(0.01)
    assert as_bytes(full_state(ours, optimizer)) == as_bytes(full_state(theirs, reference))


@KINDS
def test_a_skipped_step_changes_nothing(kind):
    model = new_model()
    optimizer = Optimizer(model, OptimizerConfig(kind=kind))
    set_gradients(model, seed=0)
    optimizer.step(0.01, grad_divisor=torch.tensor(2.0), skip_step=torch.tensor(0.0))
    before = full_state(model, optimizer)
    for bad in (torch.nan, torch.inf, 1.0):
        set_gradients(model, seed=1, factor=bad)
        optimizer.step(
            0.01, remaining=0.5, grad_divisor=torch.tensor(bad), skip_step=torch.tensor(1.0)
        )
        assert as_bytes(full_state(model, optimizer)) == as_bytes(before)


@KINDS
def test_a_step_that_is_not_skipped_equals_one_without_the_flag(kind):
    flagged, plain = new_model(), new_model()
    config = OptimizerConfig(kind=kind)
    for model, skip in ((flagged, torch.tensor(0.0)), (plain, None)):
        set_gradients(model, seed=0)
        Optimizer(model, config).step(0.01, skip_step=skip)
    assert as_bytes(copy_all(dict(flagged.named_parameters()))) == as_bytes(
        copy_all(dict(plain.named_parameters()))
    )


@KINDS
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_restored_state_continues_identically(kind, steps_before):
    model, config = new_model(), OptimizerConfig(kind=kind)
    optimizer = Optimizer(model, config)
    for step in range(steps_before):
        set_gradients(model, seed=step)
        optimizer.step(0.01)
    copy = new_model()
    copy.load_state_dict(model.state_dict())
    copied_optimizer = Optimizer(copy, config)
    copied_optimizer.check_state_dict(optimizer.state)
    for name, tensor in optimizer.state.items():
        copied_optimizer.state[name].copy_(tensor)
    for step in range(steps_before, steps_before + 3):
        for m, o in ((model, optimizer), (copy, copied_optimizer)):
            set_gradients(m, seed=step)
            o.step(0.01, remaining=0.5)
    assert as_bytes(full_state(model, optimizer)) == as_bytes(full_state(copy, copied_optimizer))


@KINDS
def test_the_padding_of_the_head_stays_zero(kind):
    model = new_model()
    assert len(model.lm_head.weight) == 256
    optimizer = Optimizer(model, OptimizerConfig(kind=kind))
    for step in range(3):
        set_gradients(model, seed=step)
        optimizer.step(0.01)
    assert not model.lm_head.weight[130:].any() and model.lm_head.weight[:130].all()


def test_the_state_of_another_optimizer_is_refused():
    model = new_model()
    adamw, muon = (Optimizer(model, OptimizerConfig(kind=k)) for k in ("adamw", "muon"))
    with pytest.raises(ValueError, match=r"'model\.layers\.0\.mlp\.down_proj\.weight/exp_avg'"):
        muon.check_state_dict(adamw.state)
    incomplete = {**adamw.state, "model.norm.weight/exp_avg": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"'model\.norm\.weight/exp_avg' with shape \[3\]"):
        adamw.check_state_dict(incomplete)
    del incomplete["model.norm.weight/exp_avg"]
    with pytest.raises(ValueError, match=r"lacks 'model\.norm\.weight/exp_avg'"):
        adamw.check_state_dict(incomplete)


@pytest.mark.parametrize(
    "bad",
    [
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": 0.0},
        {"weight_decay": -1.0},
        {"momentum": 1.0},
        {"ns_steps": 0},
        {"ns_steps": 9},
        {"embedding_lr_scale": 0.0},
        {"head_lr_scale": -1.0},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=rf"train\.optimizer.*{next(iter(bad))}"):
        OptimizerConfig(**bad)
