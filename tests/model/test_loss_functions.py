"""Losses whose weights depend on all positions, compared with autograd on full logits."""

import pytest
import torch
import torch.nn.functional as F

from gnano.model.fused_cross_entropy import IGNORE_INDEX
from gnano.utils.platform_support import compile_unsupported_reason

can_compile = pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None,
    reason="no C++ compiler or no headers",
)


def curved(nats_BT):
    """Return a loss of the nats of each row, computed by autograd on full logits."""
    return (nats_BT.sum(1) / 10).tanh().sum() + nats_BT.pow(2).mean()


def score(nats_BT):
    """Return the same loss and its gradient, of nats without a graph."""
    assert nats_BT.dtype == torch.float32 and not nats_BT.requires_grad
    with torch.enable_grad():
        leaf = nats_BT.clone().requires_grad_()
        value = curved(leaf)
        (slopes_BT,) = torch.autograd.grad(value, leaf)
    return value.detach(), slopes_BT


def plain(model, ids, targets, segments):
    logits_BTV = model(ids, document_ids_BT=segments)
    nats_BT = F.cross_entropy(
        logits_BTV.transpose(1, 2), targets, ignore_index=IGNORE_INDEX, reduction="none"
    )
    return curved(nats_BT)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def rows(make_model, random_ids):
    """A model, ids, targets and document ids; one row ends early, one is padding."""
    model = make_model().train()
    ids, targets = random_ids(model, 4, 20), random_ids(model, 4, 20, seed=1)
    targets[0, :5] = targets[1, 9:] = targets[3] = IGNORE_INDEX
    return model, ids, targets, (torch.arange(20) // 7).repeat(4, 1)


@pytest.mark.parametrize(
    ("frozen", "compiled"),
    [
        ("nothing", False),
        ("lm_head", False),
        ("all but lm_head", False),
        pytest.param("nothing", True, marks=[can_compile, pytest.mark.slow, pytest.mark.compile]),
    ],
)
def test_a_loss_function_gives_the_loss_of_full_logits(rows, frozen, compiled):
    model, ids, targets, segments = rows
    for name, parameter in model.named_parameters():
        if frozen != "nothing":
            parameter.requires_grad_(name.startswith("lm_head") == frozen.startswith("all"))
    expected = plain(model, ids, targets, segments)
    theirs = gradients(model, expected)
    model.is_compiled = compiled  # only the head's loss; test_compiled compiles blocks
    loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=score)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = gradients(model, loss)
    assert ours.keys() == theirs.keys()
    for name, their in theirs.items():
        torch.testing.assert_close(ours[name], their, rtol=1e-4, atol=1e-5, msg=name)


def test_the_value_is_that_of_the_loss_function(rows):
    model, ids, targets, segments = rows
    odd = torch.tensor(1 / 3), torch.randn(4, 20)
    loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=lambda nats_BT: odd)
    assert torch.equal(loss, odd[0]) and loss.requires_grad
    with torch.no_grad():
        loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=lambda nats_BT: odd)
    assert torch.equal(loss, odd[0])


def test_a_sum_as_loss_function_is_the_default_loss(rows):
    model, ids, targets, segments = rows
    expected = model.loss(ids, targets, document_ids_BT=segments)
    theirs = gradients(model, expected)
    total = model.loss(
        ids,
        targets,
        document_ids_BT=segments,
        loss_fn=lambda nats_BT: (nats_BT.sum(), torch.ones_like(nats_BT)),
    )
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(model, total).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-6)


def test_without_targets_gradients_are_zero(rows):
    model, ids, targets, segments = rows
    targets.fill_(IGNORE_INDEX)
    loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=score)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(model, loss).values())
