import errno
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gnano.model.hf_io import load_model, load_parameters, save_model, save_tensors


@pytest.fixture
def folder(tmp_path, make_model):
    save_model(make_model(), tmp_path, eos_token_id=7)
    return tmp_path


def rewrite(folder, change):
    """The folder's weights, changed."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_comes_back_bit_for_bit(dtype, make_model, tmp_path):
    model = make_model(rope_theta=77_777.0, norm_eps=1e-3).to(dtype)
    save_model(model, tmp_path, eos_token_id=0)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert after[name].dtype == dtype
        assert torch.equal(before[name], after[name]), name
    # memory that was never written would show here
    assert torch.equal(model.lm_head.weight, loaded.lm_head.weight)
    ids = torch.arange(40).view(1, -1)
    with torch.no_grad():
        assert torch.equal(model(ids), loaded(ids))


def test_a_loaded_model_can_be_trained(folder):
    model = load_model(folder)
    ids = torch.arange(16).view(2, 8)
    model.loss(ids, ids).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_the_file_holds_transformers_names_and_exactly_the_vocabulary(make_model, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    model = make_model(vocab_size=131)
    save_model(model, tmp_path, eos_token_id=0)
    with torch.device("meta"):
        llama = LlamaForCausalLM(LlamaConfig(**model.config.to_hf()))
    expected = {name: list(tensor.shape) for name, tensor in llama.state_dict().items()}
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        assert {name: file.get_slice(name).get_shape() for name in names} == expected
        assert file.metadata() == {"format": "pt"}
    assert expected["lm_head.weight"] == [131, 64]


def test_both_configs_name_the_end_of_text(folder):
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        assert content["eos_token_id"] == content["bos_token_id"] == 7


def test_weights_are_read_as_a_running_model_has_them(folder, make_model):
    model = make_model()
    found = load_parameters(folder, model.config)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], parameter), name  # the head with its padding


def test_weights_of_another_shape_are_refused(folder, make_model):
    with pytest.raises(ValueError, match=r"model\.ffn_hidden is stated twice, and differently"):
        load_parameters(folder, make_model(ffn_hidden=64).config)


def refusal_of(folder, error=ValueError) -> str:
    with pytest.raises(error) as refusal:
        load_model(folder)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_folder_without_config_is_no_model(tmp_path):
    assert "no config.json" in refusal_of(tmp_path, FileNotFoundError)


def test_a_folder_without_weights_is_no_model(folder):
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal_of(folder, FileNotFoundError)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_cut_short_are_recognised(folder, share):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged or cut short" in refusal_of(folder)


def test_weights_that_are_something_else_are_recognised(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 100)
    assert "damaged or cut short" in refusal_of(folder)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(95, 64)}))
    message = refusal_of(folder)
    assert name in message
    assert "[95, 64]" in message
    assert "[96, 64]" in message


def test_a_missing_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.pop("model.norm.weight"))
    message = refusal_of(folder)
    assert "model.norm.weight" in message
    assert "missing" in message


def test_an_unknown_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.update({"model.extra.bias": torch.zeros(3)}))
    assert "model.extra.bias" in refusal_of(folder)


def test_a_config_that_is_no_json_is_recognised(folder):
    (folder / "config.json").write_text('{"model_type": "llama",')
    assert "not JSON" in refusal_of(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_a_config_that_is_no_object_is_recognised(folder, content):
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal_of(folder)


@pytest.mark.parametrize(
    "foreign",
    [{"model_type": "mistral"}, {"tie_word_embeddings": True}, {"head_dim": 32}],
    ids=lambda foreign: next(iter(foreign)),
)
def test_a_folder_with_a_model_of_another_kind_is_refused(folder, foreign):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **foreign}))
    with pytest.raises(ValueError) as refused:
        load_model(folder)
    assert str(refused.value).startswith(f"{folder}: config.json has {next(iter(foreign))}")


def test_a_write_that_the_system_refuses_is_an_os_error_with_its_reason(make_model, tmp_path):
    """A full disk is such a case; here the system refuses files over 1,000 bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tensors = dict(make_model().state_dict())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as refusal:
            save_tensors(tensors, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refusal.value.errno == errno.EFBIG
    assert refusal.value.filename == str(tmp_path / "model.safetensors")
