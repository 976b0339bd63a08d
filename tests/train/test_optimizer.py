"""AdamW as the paper has it, and decay on matrices only."""

import pytest
import torch

from gnano.model import GPT
from gnano.train.optimizer import AdamWConfig, adamw

SHAPE = dict(
    vocab_size=130, n_embd=16, n_layer=1, n_head=2, n_kv_head=1, ffn_hidden=24, block_size=8
)


def test_only_matrices_decay() -> None:
    model = GPT(**SHAPE)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, AdamWConfig(weight_decay=0.5))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        shrink = 1.0 if "norm" in name else 1 - 0.1 * 0.5
        torch.testing.assert_close(p.detach(), before[name] * shrink)


def test_two_steps_equal_the_formula() -> None:
    torch.manual_seed(0)
    model = GPT(**SHAPE).double()
    config = AdamWConfig(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)
    optimizer = adamw(model, config)
    p = dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"]
    expected = p.detach().clone()
    m = v = torch.zeros_like(expected)
    for t, lr in ((1, 0.01), (2, 0.02)):
        for q in model.parameters():
            q.grad = torch.randn_like(q)
        assert p.grad is not None
        g = p.grad.clone()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-6)
        expected = expected * (1 - lr * 0.3) - lr * step
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    torch.testing.assert_close(p.detach(), expected)


@pytest.mark.parametrize("bad", [{"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}])
def test_values_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"train\.optimizer"):
        AdamWConfig(**bad)
