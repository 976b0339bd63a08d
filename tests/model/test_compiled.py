"""Compiled blocks, activation checkpointing, and CPU attention compute the same numbers."""

import pytest
import torch
import torch.nn.functional as F

from gnano.model.attention import KVCache, cpu_attention
from gnano.utils.platform_support import compile_unsupported_reason

can_compile = pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None,
    reason="no C++ compiler or no headers",
)


def gradients_of(model, ids, targets, segments=None):
    model.zero_grad()
    loss = model.loss(ids, targets, document_ids_BT=segments)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def error(ours, theirs):
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


def documents(ids):
    return (torch.arange(ids.shape[1]) // 7).repeat(len(ids), 1)


@can_compile
@pytest.mark.slow
@pytest.mark.compile
def test_compiling_changes_neither_loss_nor_gradients_nor_names(make_model, random_ids):
    eager, compiled = make_model(n_layer=2).train(), make_model(n_layer=2).train()
    compiled.compile_blocks()
    eager.compute_dtype = compiled.compute_dtype = torch.bfloat16
    ids, targets = random_ids(eager, 2, 20), random_ids(eager, 2, 20, seed=1)
    targets[0, :5] = -100

    expected, exact = gradients_of(eager, ids, targets, documents(ids))
    compiled.activation_checkpointing = True
    loss, gradients = gradients_of(compiled, ids, targets, documents(ids))
    assert loss.item() == pytest.approx(expected.item(), rel=0.03)
    for name, gradient in exact.items():
        assert gradients[name].dtype == torch.float32
        assert error(gradients[name], gradient) < 0.03, name
    assert compiled.state_dict().keys() == eager.state_dict().keys()

    with torch.no_grad():
        cache = KVCache(compiled.config, 2, 20, torch.bfloat16)
        assert torch.equal(compiled.eval()(ids), eager.eval()(ids))
        assert compiled(ids[:, :3], cache).shape == (2, 3, 131)


def test_recomputing_gives_the_same_gradients_bit_for_bit(make_model, random_ids):
    for dropout in (0.0, 0.2):
        model = make_model(dropout=dropout).train()
        ids = random_ids(model, 2, 20)
        results = []
        for model.activation_checkpointing in (False, True):
            torch.manual_seed(0)
            results.append(gradients_of(model, ids, ids, documents(ids)))
        (loss, kept), (again, recomputed) = results
        assert torch.equal(loss, again)
        assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [2, 128, 200, 256, 300])
def test_cpu_attention_computes_scaled_dot_product_attention(length, masked):
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(2, 6, length, 8, generator=generator).requires_grad_()
    k, v = (torch.randn(2, 2, length, 8, generator=generator).requires_grad_() for _ in range(2))
    mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    if masked:
        number = torch.arange(length) // 30
        mask[0] &= number[:, None] == number
    ours = cpu_attention(q, k, v, mask if masked else None)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    grad = torch.randn(ours.shape, generator=generator)
    for our, their in zip(
        torch.autograd.grad(ours, (q, k, v), grad),
        torch.autograd.grad(theirs, (q, k, v), grad),
        strict=True,
    ):
        torch.testing.assert_close(our, their, atol=1e-5, rtol=1e-4)


def test_a_missing_compiler_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    reason = compile_unsupported_reason(torch.device("cpu"))
    assert reason is not None
    assert "C++ compiler" in reason or "Python.h" in reason
