"""Models of other families compute what transformers computes, in every form of their weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.families import FAMILIES, build_model, save_model_of

from gnano.config.hf_config import read_hf_config, write_hf_config
from gnano.infer.weight_formats import fuse_projections, prepack_onednn, quantize_model
from gnano.model.attention import KVCache
from gnano.model.flops import num_active_parameters, num_parameters
from gnano.model.hf_io import load_model, save_model
from gnano.model.transformer import GPT

IDS = torch.randint(3, 512, (2, 100), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return save_model_of(request.param, folder), folder


def close(ours, theirs, tolerance=1e-4):
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max())


@torch.no_grad()
def test_logits_are_those_of_transformers(pair):
    theirs, folder = pair
    ours = load_model(folder).eval()
    assert close(ours(IDS), theirs(IDS).logits)


@torch.no_grad()
def test_decoding_with_a_cache_and_fused_matrices_gives_the_same(pair):
    theirs, folder = pair
    expected = theirs(IDS).logits
    for prepare in (lambda m: m, prepack_onednn):
        ours = prepare(fuse_projections(load_model(folder)))
        cache = KVCache(ours.config, 2, 128)
        parts = [ours(IDS[:, :60], cache)]
        parts += [ours(IDS[:, [position]], cache) for position in range(60, 100)]
        assert close(torch.cat(parts, 1), expected)


@torch.no_grad()
def test_quantized_matrices_keep_biases(pair):
    theirs, folder = pair
    ours = quantize_model(fuse_projections(load_model(folder)), "int8")
    expected = theirs(IDS).logits
    assert (ours(IDS) - expected).std() < 0.1 * expected.std()


def test_loss_and_gradients_are_those_of_transformers(pair):
    theirs, folder = pair
    ours = load_model(folder).train()
    loss = ours.loss(IDS[:, :-1], IDS[:, 1:]) / (IDS.numel() - 2)
    expected = theirs(IDS, labels=IDS).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    theirs.zero_grad()
    expected.backward()
    gradients = dict(theirs.named_parameters())
    names = dict(ours.named_parameters())
    assert names.keys() == gradients.keys()
    for name, parameter in names.items():
        assert parameter.grad is not None
        own = parameter.grad[: len(gradients[name])]  # without a head's padding
        assert close(own, gradients[name].grad, 2e-3), name


def test_the_config_and_the_saved_model_are_read_by_transformers(pair, tmp_path):
    from transformers import AutoModelForCausalLM

    theirs, folder = pair
    ours = load_model(folder)
    (tmp_path / "saved").mkdir()
    save_model(ours, tmp_path / "saved", 2)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert type(again) is type(theirs)
    with torch.no_grad():
        assert close(again(IDS).logits, theirs(IDS).logits, 1e-6)
    assert read_hf_config(json.loads((tmp_path / "saved/config.json").read_text())) == ours.config
    assert read_hf_config(write_hf_config(ours.config)) == ours.config


def test_parameters_are_counted(pair):
    theirs, folder = pair
    ours = load_model(folder)
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert ours.num_parameters() == num_parameters(ours.config) == count
    embedding = theirs.get_input_embeddings().weight.numel()
    tied = ours.config.tie_embeddings
    assert num_active_parameters(ours.config) == count - (0 if tied else embedding)


@pytest.mark.parametrize("form", ["shards", "bin", "bin shards", "wrapped", "buffers", "head"])
def test_every_form_of_the_weights_is_read(form, tmp_path):
    theirs = save_model_of("llama, tied", tmp_path / "one")
    folder = tmp_path / form.replace(" ", "-")
    tensors = load_file(tmp_path / "one/model.safetensors")
    shutil.copytree(tmp_path / "one", folder)
    if form != "shards":
        (folder / "model.safetensors").unlink()
    if form == "shards":
        shutil.rmtree(folder)
        theirs.save_pretrained(folder, max_shard_size="60KB")
        assert (folder / "model.safetensors.index.json").exists()
    elif form == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif form == "bin shards":
        halves = {"a.bin": list(tensors)[::2], "b.bin": list(tensors)[1::2]}
        for file, names in halves.items():
            torch.save({name: tensors[name] for name in names}, folder / file)
        index = {name: file for file, names in halves.items() for name in names}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    elif form == "wrapped":
        named = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
        save_file(named, folder / "model.safetensors")
    elif form == "buffers":
        buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
        save_file(tensors | buffer, folder / "model.safetensors")
    else:  # the tied head is in the file, too
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        save_file(tensors | head, folder / "model.safetensors")
    with torch.no_grad():
        assert close(load_model(folder).eval()(IDS), theirs(IDS).logits)


def test_a_tied_head_that_differs_is_refused(tmp_path):
    save_model_of("llama, tied", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"tie_word_embeddings = True, but its lm_head"):
        load_model(tmp_path)


REFUSED = {
    "model_type": {"model_type": "gemma"},
    "hidden_act": {"hidden_act": "gelu"},
    "quantization_config": {"quantization_config": {"quant_method": "gptq"}},
    "rope_type": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "sliding_window": {"model_type": "mistral", "sliding_window": 64},
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "RoPE partial_rotary_factor": {"rope_parameters": {"partial_rotary_factor": 0.5}},
    "layer_types": {"layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_changes_the_results_and_is_unknown_is_refused_by_name(key):
    config = build_model("llama").config.to_dict()
    with pytest.raises(ValueError, match=key):
        read_hf_config(config | REFUSED[key])


@pytest.mark.parametrize("tie", [False, True])
def test_training_moves_a_tied_head_with_its_embedding(tie):
    model = GPT(512, 64, 1, 4, 2, 96, 128, tie_embeddings=tie)
    model.loss(IDS[:, :64], IDS[:, 1:65]).backward()
    names = {name for name, _ in model.named_parameters()}
    assert ("lm_head.weight" in names) != tie
    assert ("lm_head.weight" in model.state_dict()) != tie
