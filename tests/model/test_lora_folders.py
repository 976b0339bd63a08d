"""Adapter folders, exchanged with PEFT in both directions."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.conftest import ADAPTER_CONFIG as CONFIG

from gnano.config.model_config import TARGET_MODULES, LoraConfig
from gnano.model.hf_io import load_model, save_model
from gnano.model.lora import add_lora, check_adapter_shape, load_adapter, merge_lora, save_adapter
from gnano.model.transformer import GPT

NAME = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"


@pytest.fixture
def folder(tuned, tmp_path):
    save_adapter(dict(tuned().named_parameters()), CONFIG, "somewhere/base", tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def by_peft(make_model, as_transformers, tmp_path):
    """Return a folder with a scaled random adapter of PEFT for our base, and its model."""

    def make(**settings):
        llama = as_transformers(make_model())
        config = peft.LoraConfig(
            **{"r": 3, "lora_alpha": 7, "task_type": "CAUSAL_LM", "lora_dropout": 0.0, **settings}
        )
        torch.manual_seed(9)
        model = peft.get_peft_model(llama, config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2)
        model.save_pretrained(tmp_path / "by-peft")
        return tmp_path / "by-peft", model

    return make


@pytest.mark.parametrize(
    "config",
    [CONFIG, LoraConfig(rank=8, alpha=2.5, dropout=0.1, target_modules=("v_proj", "gate_proj"))],
    ids=["all layers", "two of them"],
)
def test_peft_computes_the_same_logits_from_a_saved_adapter(
    config, tuned, make_model, as_transformers, random_ids, tmp_path
):
    model = tuned(config)
    save_adapter(dict(model.named_parameters()), config, "base", tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(as_transformers(make_model()), tmp_path / "adapter")
    ids = random_ids(model, 2, 20)
    with torch.no_grad():
        expected = theirs(ids).logits
        tolerance = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(model(ids), expected, atol=tolerance, rtol=0)
        with theirs.disable_adapter():
            assert (theirs(ids).logits - expected).abs().max() > 0.1  # the adapter has an effect


def test_gradients_are_those_of_peft(tuned, make_model, as_transformers, random_ids, tmp_path):
    model = tuned()
    save_adapter(dict(model.named_parameters()), CONFIG, "base", tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(
        as_transformers(make_model()), tmp_path / "adapter", is_trainable=True
    )
    ids = random_ids(model, 2, 20)
    targets = ids.roll(-1, 1)
    logits = theirs(ids).logits.flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum").backward()
    model.loss(ids, targets).backward()
    expected = {
        name.removeprefix("base_model.model.").replace(".default", ""): p.grad
        for name, p in theirs.named_parameters()
        if p.grad is not None
    }
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == expected.keys() and len(ours) == 28
    for name, gradient in expected.items():
        tolerance = 1e-4 * gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": list(TARGET_MODULES)},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 32, "r": 4},
        {"target_modules": r".*\.(up|down)_proj"},
        {"target_modules": ["k_proj"], "use_rslora": True},
        {"target_modules": ["o_proj"], "init_lora_weights": "gaussian", "lora_dropout": 0.2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_an_adapter_of_peft_merges_to_the_same_weights(by_peft, make_model, settings):
    folder, theirs = by_peft(**settings)
    base = make_model()
    config, changes = load_adapter(folder)
    check_adapter_shape(changes, config, base.config)
    ours = merge_lora({**base.state_dict(), **changes}, config)
    expected = theirs.eval().merge_and_unload().state_dict()
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-6)
    changed = {name for name in ours if not torch.equal(ours[name], base.state_dict()[name])}
    assert {name.split(".")[-2] for name in changed} == set(config.target_modules)


def test_a_saved_adapter_loads_bit_for_bit(tuned, tmp_path):
    config = LoraConfig(rank=2, alpha=0.5, dropout=0.25, target_modules=("o_proj", "q_proj"))
    for dtype in (torch.float32, torch.bfloat16):
        tensors_before = {
            name: p.detach()
            for name, p in tuned(config).to(dtype).named_parameters()
            if p.requires_grad
        }
        save_adapter(tensors_before, config, "base", tmp_path / "adapter")
        found, tensors = load_adapter(tmp_path / "adapter")
        assert set(found.target_modules) == set(config.target_modules)
        assert (found.rank, found.alpha, found.dropout) == (2, 0.5, 0.25)
        assert tensors.keys() == tensors_before.keys()
        for name, tensor in tensors_before.items():
            assert tensors[name].dtype == dtype and torch.equal(tensors[name], tensor), name


def test_the_files_name_the_base_and_contain_only_the_adapter(folder):
    assert (
        json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "somewhere/base"
    )
    names = load_file(folder / "adapter_model.safetensors").keys()
    assert len(names) == 28 and all(".lora_" in name for name in names)


def configure(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refusal_of(folder, error=ValueError) -> str:
    with pytest.raises(error) as refusal:
        load_adapter(folder)
    message = str(refusal.value)
    assert "\n" not in message and message.endswith(".")
    assert str(folder) in message
    return message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("bias", "all"),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("trainable_token_indices", [3]),
        ("init_lora_weights", "pissa"),
        ("of_next_year", {"twist": 3}),
        ("r", 0),
        ("r", -3),
        ("r", 3.0),
        ("r", 10**400),
        ("r", True),
        ("r", "3"),
        ("r", None),
        ("lora_alpha", 0),
        ("lora_alpha", "7"),
        ("lora_alpha", [7]),
        ("lora_alpha", float("nan")),
        ("lora_alpha", 10**400),
        ("lora_dropout", 1),
        ("lora_dropout", "none"),
    ],
)
def test_unsupported_settings_are_refused_by_key(folder, key, value):
    configure(folder, **{key: value})
    assert f"adapter_config.json has {key} = " in refusal_of(folder)


@pytest.mark.parametrize("rank", [1, 4, 10**12])
def test_a_rank_that_differs_from_the_tensors_is_refused(folder, rank):
    configure(folder, r=rank)
    message = refusal_of(folder)
    assert f"r = {rank}" in message and "[3, 96]" in message


@pytest.mark.parametrize("targets", [[], ["q_proj"], [*TARGET_MODULES, "lm_head"], [["q_proj"]]])
def test_target_modules_that_differ_from_the_tensors_are_refused(folder, targets):
    configure(folder, target_modules=targets)
    assert "target_modules" in refusal_of(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(NAME), "without the other matrix"),
        (lambda tensors: tensors.update({NAME: torch.zeros(2, 64)}), "is [2, 64]"),
        (lambda tensors: tensors.update({NAME: torch.zeros(3, 64, 1)}), "is [3, 64, 1]"),
        (lambda tensors: tensors.update({NAME: torch.zeros(3, 64, dtype=torch.int8)}), "values"),
        (lambda tensors: tensors.update({NAME: torch.full((3, 64), float("nan"))}), "values"),
        (lambda tensors: tensors.update({"lm_head.lora_A.weight": torch.zeros(3, 64)}), "lm_head"),
        (
            lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.zeros(2)}),
            "lm_",
        ),
        (lambda tensors: tensors.clear(), "of none"),
    ],
    ids=["half", "rank", "dimensions", "integers", "nan", "prefix", "head", "empty"],
)
def test_incomplete_or_foreign_tensors_are_refused(folder, change, message):
    rewrite(folder, change)
    assert message in refusal_of(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_an_incomplete_adapter_file_is_refused(folder, share):
    path = folder / "adapter_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged or incomplete" in refusal_of(folder)


def test_a_pickle_is_not_opened(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "safetensors" in refusal_of(folder, FileNotFoundError)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    assert "adapter_config.json" in refusal_of(tmp_path, FileNotFoundError)


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"r": 3,', "[" * 100_000])
def test_an_adapter_config_that_is_not_an_object_is_refused(folder, content):
    (folder / "adapter_config.json").write_text(content)
    assert "JSON" in refusal_of(folder)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"n_layer": 3}, "layers.2"),
        ({"n_layer": 1}, "layers.1"),
        ({"ffn_hidden": 80}, "[3, 96] and must be [3, 80]"),
        ({"n_kv_head": 4}, "k_proj"),
    ],
    ids=lambda case: str(case),
)
def test_an_adapter_of_another_model_shape_is_refused(folder, make_model, shape, message):
    config, tensors = load_adapter(folder)
    check_adapter_shape(tensors, config, make_model().config)
    with pytest.raises(
        ValueError, match=r"^The adapter does not fit the base model.*\.$"
    ) as refusal:
        check_adapter_shape(tensors, config, make_model(**shape).config)
    assert message in str(refusal.value)


def test_a_loaded_adapter_works_on_its_base(folder, tuned, tmp_path, random_ids):
    model = tuned()
    (tmp_path / "base").mkdir()
    plain = {name: p for name, p in model.state_dict().items() if ".lora_" not in name}
    base = GPT.from_config(model.config)
    base.load_state_dict(plain)
    save_model(base, tmp_path / "base", eos_token_id=0)
    config, tensors = load_adapter(folder)
    again = load_model(tmp_path / "base").eval()
    add_lora(again, config)
    again.load_state_dict(tensors, strict=False)
    ids = random_ids(model, 2, 20)
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
