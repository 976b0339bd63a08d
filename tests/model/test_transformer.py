import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gnano.config.model_config import PRESETS
from gnano.model.transformer import GPT

SHAPES: dict[str, dict[str, Any]] = {
    "a key/value head for each query head": {"n_kv_head": 4, "rope_theta": 10_000.0},
    "one key/value head for all": {"n_kv_head": 1, "n_embd": 128, "vocab_size": 97},
    "groups of query heads": {"n_head": 6, "n_kv_head": 2, "n_embd": 384, "vocab_size": 257},
    "uneven sizes": {"n_head": 7, "n_kv_head": 1, "n_embd": 140, "rope_theta": 1e6},
    "a norm with a large epsilon": {"norm_eps": 0.1, "n_layer": 3, "vocab_size": 256},
}


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def model(request, make_model):
    return make_model(**SHAPES[request.param])


def test_logits_are_those_of_transformers(model, as_transformers, random_ids):
    ids = random_ids(model, batch=3, length=model.config.block_size)
    with torch.no_grad():
        ours, theirs = model(ids), as_transformers(model)(ids).logits
    assert ours.shape == (3, model.config.block_size, model.config.vocab_size)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_gradients_are_those_of_transformers(model, as_transformers, random_ids):
    ids = random_ids(model, batch=3, length=24)
    targets = random_ids(model, batch=3, length=24, seed=1)
    targets[0, :10] = targets[1, 5] = targets[2, -1] = -100
    theirs = as_transformers(model)

    loss = model.loss(ids, targets)
    loss.backward()
    logits = theirs(ids).logits
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    expected.backward()

    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    vocab = model.config.vocab_size
    assert not gradients["lm_head.weight"][vocab:].any()
    gradients["lm_head.weight"] = gradients["lm_head.weight"][:vocab]
    for name, parameter in theirs.named_parameters():
        error = (gradients.pop(name) - parameter.grad).norm() / parameter.grad.norm()
        assert error < 1e-4, f"{name} is off by {error:.1e} of its length"
    assert not gradients


def test_the_loss_is_a_sum_in_nats_over_targets(make_model, random_ids):
    model = make_model()
    ids, targets = random_ids(model, 2, 16), random_ids(model, 2, 16, seed=1)
    targets[:, ::3] = -100
    with torch.no_grad():
        logs = model(ids).log_softmax(-1)
        rows = [
            -logs[b, t, target]
            for b, row in enumerate(targets.tolist())
            for t, target in enumerate(row)
            if target != -100
        ]
        assert model.loss(ids, targets).item() == pytest.approx(sum(rows).item(), rel=1e-5)


def test_a_batch_without_targets_has_loss_0_and_no_gradient(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 2, 8)
    loss = model.loss(ids, torch.full_like(ids, -100))
    loss.backward()
    assert loss.item() == 0
    assert not any(parameter.grad.any() for parameter in model.parameters())


def test_a_new_model_predicts_uniformly(random_ids):
    torch.manual_seed(0)
    model = GPT.from_config(PRESETS["demo"])
    ids, targets = random_ids(model, 2, 64), random_ids(model, 2, 64, seed=1)
    with torch.no_grad():
        nats = model.loss(ids, targets).item() / targets.numel()
    assert nats == pytest.approx(math.log(model.config.vocab_size), abs=0.1)


def test_initial_weights_are_scaled_by_depth():
    torch.manual_seed(0)
    model = GPT(vocab_size=500, n_embd=128, n_layer=8, n_head=4, n_kv_head=2, ffn_hidden=256)
    for name, tensor in model.state_dict().items():
        if name.endswith("norm.weight"):
            assert (tensor == 1).all(), name
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        expected = 0.02 / math.sqrt(2 * 8) if residual else 0.02
        assert tensor.std().item() == pytest.approx(expected, rel=0.05), name
        assert abs(tensor.mean().item()) < 0.05 * expected, name


def test_exceeding_the_context_is_one_sentence(make_model, random_ids):
    model = make_model(block_size=40)
    model(random_ids(model, 1, 40))
    with pytest.raises(ValueError, match=r"^41 tokens do not fit in the model's context of 40\.$"):
        model(random_ids(model, 1, 41))


def test_dropout_acts_in_training_only(make_model, random_ids):
    model, plain = make_model(dropout=0.3), make_model(dropout=0.0)
    ids = random_ids(model, 2, 16)
    with torch.no_grad():
        expected = plain(ids)
        assert torch.equal(model(ids), expected)
        model.train()
        first, second = model(ids), model(ids)
        assert (first - expected).abs().max() > 0.01
        assert (first - second).abs().max() > 0.01
        assert torch.equal(plain.train()(ids), expected)


def test_dropout_acts_on_the_feed_forward_too(make_model, random_ids):
    model = make_model(dropout=0.3)
    ids = random_ids(model, 2, 16)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
        expected = model(ids)
        assert (model.train()(ids) - expected).abs().max() > 0.01


def test_bf16_compute_stays_near_fp32_and_leaves_weights_and_gradients_in_fp32(
    make_model, random_ids
):
    model = make_model()
    ids = random_ids(model, 2, 32)
    with torch.no_grad():
        precise = model(ids)
        model.compute_dtype = torch.bfloat16
        rough = model(ids)
    assert model.hidden_states(ids).dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    error = (rough - precise).norm() / precise.norm()
    assert 1e-4 < error < 0.05, "no bf16 at all, or more than its rounding"

    model.loss(ids, ids).backward()
    rough_gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.compute_dtype = None
    model.zero_grad()
    model.loss(ids, ids).backward()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == rough_gradients[name].dtype == torch.float32
        error = (rough_gradients[name] - parameter.grad).norm() / parameter.grad.norm()
        assert error < 0.1, name


def test_a_model_can_train_after_generating(random_ids, make_model):
    # an unused context length, so that no table is cached
    model = make_model(block_size=39)
    ids = random_ids(model, 1, 8)
    with torch.inference_mode():
        model(ids)
    model.loss(ids, ids).backward()


def test_the_vocabulary_is_padded_in_memory_and_exact_on_disk(make_model):
    model = make_model(vocab_size=50_257, n_embd=16, n_head=2, n_kv_head=1, ffn_hidden=16)
    assert model.lm_head.weight.shape == (50_304, 16)
    stored = model.state_dict()
    assert stored["lm_head.weight"].shape == (50_257, 16)
    assert stored["model.embed_tokens.weight"].shape == (50_257, 16)
    assert model(torch.tensor([[50_256]])).shape == (1, 1, 50_257)


def test_padding_is_not_trained_and_not_in_the_loss(make_model, random_ids):
    model = make_model(vocab_size=131)
    ids = random_ids(model, 2, 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    old = model.lm_head.weight.detach().clone()
    for _ in range(2):
        model.loss(ids, ids).backward()
        optimizer.step()
    assert not model.lm_head.weight[131:].any()
    assert (model.lm_head.weight[:131] != old[:131]).all()

    loss = model.loss(ids, ids).item()
    with torch.no_grad():
        model.lm_head.weight[131:] = 100.0
    assert model.loss(ids, ids).item() == loss
