"""LoRA: an adapter starts without effect, is the only part trained, and can be merged."""

from dataclasses import replace

import pytest
import torch
from tests.model.conftest import ADAPTER_CONFIG as CONFIG

from gnano.config.model_config import TARGET_MODULES, LoraConfig
from gnano.model.lora import add_lora, merge_lora
from gnano.model.transformer import GPT


def gradients(model: GPT, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.loss(ids, ids.roll(-1, 1)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_new_adapter_does_not_change_the_output(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 2, 20)
    with torch.no_grad():
        before = model(ids)
        add_lora(model, CONFIG)
        assert torch.equal(model(ids), before)


def test_base_parameters_keep_names_and_memory(
    make_model,
):
    model = make_model()
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    add_lora(model, replace(CONFIG, target_modules=("q_proj", "down_proj")))
    after = dict(model.named_parameters())
    assert {name: after[name].data_ptr() for name in before} == before
    shapes = {name: list(after[name].shape) for name in after.keys() - before.keys()}
    layers = (("self_attn.q_proj", 64, 64), ("mlp.down_proj", 96, 64))
    assert shapes == {
        f"model.layers.{block}.{layer}.lora_{half}.weight": shape
        for block in (0, 1)
        for layer, inputs, outputs in layers
        for half, shape in (("A", [3, inputs]), ("B", [outputs, 3]))
    }


def test_all_of_the_adapter_and_nothing_else_is_trained(tuned, random_ids):
    model = tuned()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = gradients(model, random_ids(model, 2, 20))
    assert found.keys() == {name for name in before if ".lora_" in name}
    assert len(found) == 2 * 2 * 7
    assert all(gradient.any() for gradient in found.values())
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (".lora_" not in name), name


def test_an_adapter_depends_on_the_seed(make_model):
    def drawn(seed: int) -> torch.Tensor:
        model = make_model()
        torch.manual_seed(seed)
        add_lora(model, CONFIG)
        return torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))


def test_a_merged_model_has_the_same_logits(tuned, make_model, random_ids):
    model = tuned()
    tensors = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in tensors.items()}
    plain, base = make_model(), make_model()
    plain.load_state_dict(merge_lora(tensors, CONFIG))  # strict: no name is missing or unexpected
    ids = random_ids(model, 2, 20)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids), model(ids), atol=1e-4, rtol=1e-5)
        assert (plain(ids) - base(ids)).abs().max() > 0.5  # the adapter has an effect
    assert all(torch.equal(tensors[name], before[name]) for name in before)


def test_weights_in_bf16_are_merged_in_fp32_and_rounded_once(tuned):
    model = tuned().bfloat16()
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    found = merge_lora(tensors, CONFIG)
    for layer in ("self_attn.k_proj", "mlp.up_proj"):
        weight, a, b = (
            tensors[f"model.layers.1.{layer}.{part}weight"].double()
            for part in ("", "lora_A.", "lora_B.")
        )
        ours = found[f"model.layers.1.{layer}.weight"]
        assert ours.dtype == torch.bfloat16
        exact = weight + 7 / 3 * b @ a
        assert ((ours.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-6).all()
        assert (ours == exact.to(torch.bfloat16)).float().mean() > 0.99


def test_an_adapter_computes_in_the_dtype_of_its_input(tuned, random_ids):
    model = tuned()
    model.compute_dtype = torch.bfloat16
    ids = random_ids(model, 2, 20)
    layer = model.model.layers[0].self_attn.q_proj
    assert layer(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    found = gradients(model, ids)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())


def test_dropout_applies_only_to_the_adapter_in_training(make_model, tuned, random_ids):
    config = replace(CONFIG, dropout=0.5)
    ids = random_ids(make_model(), 2, 20)
    with torch.no_grad():
        model = tuned(config)
        assert torch.equal(model(ids), model(ids)) and torch.equal(model(ids), tuned()(ids))
        model.train()
        assert not torch.equal(model(ids), model(ids))
        new = make_model().train()
        before = new(ids)
        add_lora(new, config)  # B is zero, so dropout has no effect yet
        assert torch.equal(new(ids), before)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_activation_checkpointing_gives_the_same_gradients(tuned, random_ids, dropout):
    """With dropout both passes draw the same numbers."""
    model = tuned(replace(CONFIG, dropout=dropout)).train()
    ids = random_ids(model, 2, 20)
    found = []
    for model.activation_checkpointing in (False, True):
        torch.manual_seed(3)
        found.append(gradients(model, ids))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.compile
def test_a_compiled_block_is_one_graph_and_computes_the_same(tuned, random_ids):
    eager, compiled = tuned().train(), tuned().train()
    eager.activation_checkpointing = compiled.activation_checkpointing = True
    ids = random_ids(eager, 2, 20)
    expected = gradients(eager, ids)
    block = compiled.model.layers[0]
    # checks the graph only; generating code would take a minute
    block.forward = torch.compile(block.forward, fullgraph=True, backend="aot_eager")
    found = gradients(compiled, ids)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def test_evaluation_and_generation_use_the_adapter(tuned, make_model, random_ids):
    model = tuned()
    plain = make_model()
    plain.load_state_dict(merge_lora(dict(model.named_parameters()), CONFIG))
    ids = random_ids(model, 2, 20)
    with torch.no_grad():
        torch.testing.assert_close(model.loss(ids, ids), plain.loss(ids, ids), rtol=1e-5, atol=1e-3)


def test_the_adapter_has_the_device_and_dtype_of_its_model(make_model):
    model = make_model().to("meta", torch.float64)
    add_lora(model, CONFIG)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float64)}


@pytest.mark.parametrize(
    ("mistake", "key"),
    [
        ({"rank": -1}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"target_modules": ()}, "target_modules"),
        ({"target_modules": ("q_proj", "lm_head")}, "target_modules"),
    ],
)
def test_an_invalid_config_is_refused_by_key(mistake, key):
    with pytest.raises(ValueError, match=rf"^train\.lora\.{key} is .*\.$"):
        LoraConfig(**{"rank": 4, **mistake})


def test_adapters_are_off_by_default_and_target_all_block_matrices(make_model):
    assert LoraConfig().rank == 0
    names = {name for name, part in make_model().model.layers[0].named_modules()}
    assert {name.rsplit(".", 1)[-1] for name in names if name.endswith("_proj")} == set(
        TARGET_MODULES
    )
