import math
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gnano.model import fused_cross_entropy as module
from gnano.model.fused_cross_entropy import IGNORE_INDEX, fused_linear_cross_entropy, token_nll


@contextmanager
def slices_of(rows: int, padded: int):
    with mock.patch.object(module, "CPU_SLICE_BYTES", 4 * padded * rows):
        yield


def problem(tokens=50, width=16, vocab=37, padding=91, ignored=0.3, scale=1.0, seed=0):
    """Return hidden states, head and targets; padding rows must have no effect."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(vocab + padding, width, generator=generator) * scale
    targets = torch.randint(vocab, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = IGNORE_INDEX
    return x.requires_grad_(), weight.requires_grad_(), targets


def plain(x, weight, targets, vocab, reduction="sum"):
    """Return the cross-entropy of full logits in float64."""
    logits = x.double() @ weight.double()[:vocab].T
    return F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction=reduction)


def relative(ours, theirs):
    return (
        (ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-9)
    ).item()


@settings(deadline=None)
@given(
    tokens=st.integers(1, 40),
    vocab=st.integers(1, 60),
    padding=st.integers(0, 20),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    rows=st.integers(1, 50),
    factor=st.floats(-3, 3),
    seed=st.integers(0, 10_000),
)
def test_loss_and_gradients_are_those_of_cross_entropy_on_full_logits(
    tokens, vocab, padding, ignored, scale, rows, factor, seed
):
    x, weight, targets = problem(tokens, 8, vocab, padding, ignored, scale, seed)
    with slices_of(rows, vocab + padding):
        loss = fused_linear_cross_entropy(x, weight, targets, vocab)
    expected = plain(x, weight, targets, vocab)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)
    ours = torch.autograd.grad(loss * factor, (x, weight))
    theirs = torch.autograd.grad(expected * factor, (x, weight))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4 * scale)
    assert not ours[1][vocab:].any()
    assert not ours[0][targets == IGNORE_INDEX].any()


def test_without_gradients_the_loss_is_the_same():
    x, weight, targets = problem()
    with slices_of(7, len(weight)):
        trained = fused_linear_cross_entropy(x, weight, targets, 37)
        with torch.no_grad():
            measured = fused_linear_cross_entropy(x, weight, targets, 37)
        detached = fused_linear_cross_entropy(x.detach(), weight.detach(), targets, 37)
    assert trained.requires_grad and not measured.requires_grad and not detached.requires_grad
    assert measured.item() == detached.item() == pytest.approx(trained.item(), rel=1e-6)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_no_product_is_computed_for_a_frozen_side(frozen):
    x, weight, targets = problem()
    with products() as both:
        fused_linear_cross_entropy(x, weight, targets, 37).backward()
    learning, still = (weight, x) if frozen == "x" else (x, weight)
    learning.grad = still.grad = None
    still.requires_grad_(False)
    with products() as one:
        fused_linear_cross_entropy(x, weight, targets, 37).backward()
    (expected,) = torch.autograd.grad(plain(x, weight, targets, 37), learning)
    assert relative(learning.grad, expected) < 1e-5
    assert still.grad is None
    assert (len(both), len(one)) == (3, 2)


@contextmanager
def products():
    """Count the matrix products of the block."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, arguments=(), options=None):
            if operation.overloadpacket is torch.ops.aten.mm:
                seen.append(operation)
            return operation(*arguments, **(options or {}))

    with Watch():
        yield seen


@settings(deadline=None)
@given(
    tokens=st.integers(1, 40),
    padding=st.integers(0, 20),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    rows=st.integers(1, 50),
    factor=st.floats(-3, 3),
    seed=st.integers(0, 10_000),
)
def test_scaled_positions_are_those_of_cross_entropy_on_full_logits(
    tokens, padding, ignored, rows, factor, seed
):
    x, weight, targets = problem(tokens, 8, 37, padding, ignored, seed=seed)
    scale = torch.randn(tokens, generator=torch.Generator().manual_seed(seed))
    with slices_of(rows, 37 + padding):
        nats = token_nll(x, weight, targets, 37)
        loss = fused_linear_cross_entropy(x, weight, targets, 37, scale_N=scale)
        with torch.no_grad():
            measured = fused_linear_cross_entropy(x, weight, targets, 37, scale_N=scale)
    each = plain(x, weight, targets, 37, "none")
    assert not nats.requires_grad and not nats[targets == IGNORE_INDEX].any()
    torch.testing.assert_close(nats.double(), each, rtol=1e-5, atol=1e-5)
    expected = (each * scale).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)
    assert measured.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)
    ours = torch.autograd.grad(loss * factor, (x, weight))
    theirs = torch.autograd.grad(expected * factor, (x, weight))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)
    assert not ours[1][37:].any() and not ours[0][targets == IGNORE_INDEX].any()


def test_in_bf16_a_scale_is_not_rounded():
    """0.3 in bf16 is wrong by 0.1 %, and would make all gradients wrong."""
    x, weight, targets = problem(tokens=199, width=64)
    rough = x.detach().bfloat16().requires_grad_()
    complete = torch.autograd.grad(
        fused_linear_cross_entropy(rough, weight, targets, 37), (rough, weight)
    )
    scaled = fused_linear_cross_entropy(rough, weight, targets, 37, scale_N=torch.full((199,), 0.3))
    for one, part in zip(complete, torch.autograd.grad(scaled, (rough, weight)), strict=True):
        share = (one.double() * part.double()).sum() / one.double().pow(2).sum()
        assert share.item() == pytest.approx(0.3, rel=2e-4)


def test_slicing_changes_nothing():
    x, weight, targets = problem(tokens=100)
    losses, gradients = [], []
    for rows in (1, 7, 50, 99, 100, 101):
        with slices_of(rows, len(weight)):
            loss = fused_linear_cross_entropy(x, weight, targets, 37)
        losses.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, (x, weight))]))
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-6)
    assert all(relative(gradient, gradients[0]) < 1e-5 for gradient in gradients)


def test_full_logits_never_exist():
    tokens, rows = 512, 16
    x, weight, targets = problem(tokens, width=8, vocab=100, padding=28)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, arguments=(), options=None):
            nonlocal largest
            made = operation(*arguments, **(options or {}))
            for tensor in made if isinstance(made, tuple | list) else [made]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return made

    with slices_of(rows, 128), Watch():
        fused_linear_cross_entropy(x, weight, targets, 100).backward()
        with torch.no_grad():
            fused_linear_cross_entropy(x, weight, targets, 100)
    assert largest <= max(x.numel(), weight.numel(), rows * 128) < tokens * 128 / 10


def test_bf16_states_and_an_fp32_head_give_bf16_and_fp32_gradients_near_the_exact_ones():
    x, weight, targets = problem(tokens=200, width=64, ignored=0.2, scale=0.3)
    rough = x.detach().bfloat16().requires_grad_()
    with slices_of(13, len(weight)):
        loss = fused_linear_cross_entropy(rough, weight, targets, 37)
    loss.backward()
    exact = plain(rough, weight, targets, 37)
    to_x, to_weight = torch.autograd.grad(exact, (rough, weight))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=2e-3)
    assert rough.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
    assert relative(rough.grad, to_x) < 0.01
    assert relative(weight.grad, to_weight) < 0.01


def test_the_mean_over_any_number_of_tokens_scales_both_gradients_equally():
    """1/N in bf16 is wrong by up to 0.4 %, and would make all gradients wrong."""
    x, weight, targets = problem(tokens=199, width=64)
    rough = x.detach().bfloat16().requires_grad_()
    total, weight_total = torch.autograd.grad(
        fused_linear_cross_entropy(rough, weight, targets, 37), (rough, weight)
    )
    mean, weight_mean = torch.autograd.grad(
        fused_linear_cross_entropy(rough, weight, targets, 37) / 3, (rough, weight)
    )
    for complete, third in ((total, mean), (weight_total, weight_mean)):
        share = (complete.double() * third.double()).sum() / complete.double().pow(2).sum()
        assert share.item() == pytest.approx(1 / 3, rel=2e-4)


def test_the_loss_is_computed_in_fp32():
    """With equal logits the loss is ln V in fp32, which bf16 cannot represent."""
    x = torch.zeros(200, 16, dtype=torch.bfloat16, requires_grad=True)
    _, weight, targets = problem(tokens=200, ignored=0.0)
    expected = 200 * math.log(37)
    assert fused_linear_cross_entropy(x, weight, targets, 37).item() == pytest.approx(
        expected, rel=1e-5
    )
    with torch.no_grad():
        assert fused_linear_cross_entropy(x, weight, targets, 37).item() == pytest.approx(
            expected, rel=1e-5
        )


def test_large_logits_do_not_overflow():
    x, weight, targets = problem(scale=1000.0)
    loss = fused_linear_cross_entropy(x, weight, targets, 37)
    loss.backward()
    assert loss.item() == pytest.approx(plain(x, weight, targets, 37).item(), rel=1e-5)
    assert x.grad.isfinite().all() and weight.grad.isfinite().all()


def test_nothing_is_computed_for_ignored_positions():
    """Otherwise most of the work in fine-tuning would be for prompts."""
    x, weight, targets = problem(tokens=80, ignored=0.0)
    targets[::4] = IGNORE_INDEX
    targets[10:60] = IGNORE_INDEX  # 23 remain
    with slices_of(8, len(weight)), products() as seen:
        fused_linear_cross_entropy(x, weight, targets, 37).backward()
    assert len(seen) == 3 * 3, "a slice takes three products, and 23 positions three slices"
