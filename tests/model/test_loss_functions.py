"""A loss that looks at all positions before it weighs them: autograd on full logits agrees."""

import pytest
import torch
import torch.nn.functional as F

from gnano.model.devices import compile_unsupported_reason
from gnano.model.fused_cross_entropy import IGNORE_INDEX

can_compile = pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None,
    reason="no C++ compiler or no headers",
)


def curved(nats_BT):
    """Depends on the nats of each row together; by torch's own autograd on full logits."""
    return (nats_BT.sum(1) / 10).tanh().sum() + nats_BT.pow(2).mean()


def score(nats_BT):
    """The same loss and its derivative, of nats that know of no graph."""
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
    """A model in training, ids, targets and segments: one row ends early, one is all padding."""
    model = make_model().train()
    ids, targets = random_ids(model, 4, 20), random_ids(model, 4, 20, seed=1)
    targets[0, :5] = targets[1, 9:] = targets[3] = IGNORE_INDEX
    return model, ids, targets, (torch.arange(20) // 7).repeat(4, 1)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=[can_compile, pytest.mark.compile])]
)
@pytest.mark.parametrize("frozen", ["nothing", "lm_head", "all but lm_head"])
def test_a_scored_loss_is_that_of_full_logits(rows, compiled, frozen):
    model, ids, targets, segments = rows
    for name, parameter in model.named_parameters():
        if frozen != "nothing":
            parameter.requires_grad_(name.startswith("lm_head") == frozen.startswith("all"))
    expected = plain(model, ids, targets, segments)
    theirs = gradients(model, expected)
    model.is_compiled = compiled  # the head's loss alone: blocks are compiled in test_compiled
    loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=score)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = gradients(model, loss)
    assert ours.keys() == theirs.keys()
    for name, their in theirs.items():
        torch.testing.assert_close(ours[name], their, rtol=1e-4, atol=1e-5, msg=name)


def test_its_value_is_the_scores_own_with_gradients_and_without(rows):
    model, ids, targets, segments = rows
    odd = torch.tensor(1 / 3), torch.randn(4, 20)
    loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=lambda nats_BT: odd)
    assert torch.equal(loss, odd[0]) and loss.requires_grad
    with torch.no_grad():
        loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=lambda nats_BT: odd)
    assert torch.equal(loss, odd[0])


def test_the_sum_as_a_score_is_the_loss_without_one(rows):
    model, ids, targets, segments = rows
    expected = model.loss(ids, targets, document_ids_BT=segments)
    theirs = gradients(model, expected)
    whole = model.loss(
        ids,
        targets,
        document_ids_BT=segments,
        loss_fn=lambda nats_BT: (nats_BT.sum(), torch.ones_like(nats_BT)),
    )
    assert whole.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(model, whole).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-6)


def test_where_nothing_counts_nothing_is_learned(rows):
    model, ids, targets, segments = rows
    targets.fill_(IGNORE_INDEX)
    loss = model.loss(ids, targets, document_ids_BT=segments, loss_fn=score)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(model, loss).values())
