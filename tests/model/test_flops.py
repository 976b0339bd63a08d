"""Parameter, FLOP and byte counts."""

from dataclasses import asdict

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gnano.config.hf_config import write_hf_config
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.model.attention import KVCache
from gnano.model.flops import (
    flops_per_token,
    kv_cache_bytes_per_token,
    num_active_parameters,
    num_parameters,
    parameters_by_part,
)
from gnano.model.transformer import GPT


def test_the_published_class_has_1_050_002_688_parameters():
    with torch.device("meta"):
        model = GPT()
    assert model.num_parameters() == 1_050_002_688
    assert asdict(model.config) == asdict(PRESETS["1b"])


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_the_parts_add_up_to_the_model_and_to_that_of_transformers(config):
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = GPT.from_config(config)
        llama = LlamaForCausalLM(LlamaConfig(**write_hf_config(config)))
    expected = sum(parameter.numel() for parameter in llama.parameters())
    assert sum(parameters_by_part(config).values()) == num_parameters(config) == expected
    assert model.num_parameters() == expected
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == expected


def test_each_part_counts_its_own_tensors():
    config = PRESETS["10m"]
    with torch.device("meta"):
        state = GPT.from_config(config).state_dict()

    def count(*words):
        return sum(t.numel() for name, t in state.items() if any(word in name for word in words))

    assert parameters_by_part(config) == {
        "embedding": count("embed_tokens"),
        "attention": count("self_attn"),
        "feed-forward": count("mlp"),
        "norms": count("norm"),
        "head": count("lm_head"),
    }


def test_the_reference_model_reads_959_942_144_weights_per_token():
    assert num_active_parameters(PRESETS["1b"]) == 959_942_144


def test_the_reference_model_caches_24_576_bytes_per_token():
    assert kv_cache_bytes_per_token(PRESETS["1b"]) == 24_576
    cache = KVCache(PRESETS["1b"], 1, 10, torch.bfloat16, torch.device("meta"))
    held = sum(layer.k_BKTE.nbytes + layer.v_BKTE.nbytes for layer in cache.layers)
    assert held == 10 * 24_576


@pytest.mark.parametrize("length", [32, 17])
def test_flops_are_those_of_a_training_step(length):
    """Counts every matrix product of forward and backward with PyTorch's counter.

    Two things stand between the formula and the counter. 6·N also counts the weights of the
    norms, which multiply element by element and so are no matrix product. And the counter
    sees attention only where it is written as matrix products (the math backend), which
    compute the full square, as the formula does; a fused causal kernel skips half of it.
    Nothing else: backward costs twice the forward in each product, the head's included.
    """
    config = ModelConfig(
        vocab_size=256,  # full tiles: the formula does not count padding
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_kv_head=2,
        ffn_hidden=96,
        block_size=32,
    )
    model = GPT.from_config(config)
    ids = torch.randint(256, (2, length))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.loss(ids, ids).backward()
    norms = 6 * parameters_by_part(config)["norms"]
    assert counter.get_total_flops() == ids.numel() * (flops_per_token(config, length) - norms)


@pytest.mark.parametrize("preset", ["10m", pytest.param("1b", marks=pytest.mark.slow)])
def test_flops_and_parameters_of_presets_match_torch(preset):
    """Counts the products of a training step on meta tensors, including the head's padding."""
    config = PRESETS[preset]
    with torch.device("meta"):
        model = GPT.from_config(config)
        ids = torch.zeros(1, config.block_size, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.loss(ids, ids).backward()
    seen = sum(parameter.numel() for parameter in model.parameters())
    padding = (config.padded_vocab_size - config.vocab_size) * config.n_embd
    assert seen == num_parameters(config) + padding
    norms = parameters_by_part(config)["norms"]
    expected = flops_per_token(config) + 6 * (padding - norms)
    assert counter.get_total_flops() == config.block_size * expected


def test_flops_default_to_the_full_context():
    for config in PRESETS.values():
        assert flops_per_token(config) == flops_per_token(config, config.block_size)
        assert flops_per_token(config, 1) < flops_per_token(config)
