import errno
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gnano.config.hf_config import write_hf_config
from gnano.model.hf_io import load_model, load_parameters, save_model, save_tensors


@pytest.fixture
def folder(tmp_path, make_model):
    save_model(make_model(), tmp_path, eos_token_id=7)
    return tmp_path


def rewrite(folder, change):
    """Change the weights of a folder."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_loads_bit_for_bit(dtype, make_model, tmp_path):
    model = make_model(rope_theta=77_777.0, norm_eps=1e-3).to(dtype)
    save_model(model, tmp_path, eos_token_id=0)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert after[name].dtype == dtype
        assert torch.equal(before[name], after[name]), name
    # uninitialized memory would show here
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


def test_the_file_has_the_names_of_transformers_and_no_padding(make_model, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    model = make_model(vocab_size=131)
    save_model(model, tmp_path, eos_token_id=0)
    with torch.device("meta"):
        llama = LlamaForCausalLM(LlamaConfig(**write_hf_config(model.config)))
    expected = {name: list(tensor.shape) for name, tensor in llama.state_dict().items()}
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        assert {name: file.get_slice(name).get_shape() for name in names} == expected
        assert file.metadata() == {"format": "pt"}
    assert expected["lm_head.weight"] == [131, 64]


def test_both_configs_contain_the_end_of_text_id(folder):
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        assert content["eos_token_id"] == content["bos_token_id"] == 7


def test_loaded_parameters_are_padded(folder, make_model):
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


def test_a_folder_without_config_is_refused(tmp_path):
    assert "no config.json" in refusal_of(tmp_path, FileNotFoundError)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor pyt" in refusal_of(folder, FileNotFoundError)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_incomplete_weights_are_refused(folder, share):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged or incomplete" in refusal_of(folder)


def test_a_file_that_is_not_safetensors_is_refused(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 100)
    assert "damaged or incomplete" in refusal_of(folder)


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


def test_a_config_that_is_not_json_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "llama",')
    assert "not JSON" in refusal_of(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_a_config_that_is_not_an_object_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal_of(folder)


@pytest.mark.parametrize(
    "foreign",
    [{"model_type": "gemma"}, {"hidden_act": "gelu"}, {"partial_rotary_factor": 0.5}],
    ids=lambda foreign: next(iter(foreign)),
)
def test_unsupported_config_values_are_refused(folder, foreign):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **foreign}))
    with pytest.raises(ValueError) as refused:
        load_model(folder)
    assert str(refused.value).startswith(f"{folder}: config.json has {next(iter(foreign))}")


def test_a_failed_write_is_an_os_error_with_its_reason(make_model, tmp_path):
    """The system refuses files over 1,000 bytes, as if the disk were full."""
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
