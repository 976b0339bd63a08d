"""A shape survives config.json, and impossible or unsupported shapes are refused."""

import json
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnano.config.hf_config import read_hf_config, write_hf_config
from gnano.config.model_config import PRESETS, ModelConfig, RopeScaling
from gnano.model.transformer import GPT


@st.composite
def configs(draw):
    n_kv_head = draw(st.integers(1, 8))
    n_head = n_kv_head * draw(st.integers(1, 4))
    return ModelConfig(
        vocab_size=draw(st.integers(1, 200_000)),
        n_embd=n_head * 2 * draw(st.integers(1, 64)),
        n_layer=draw(st.integers(1, 100)),
        n_head=n_head,
        n_kv_head=n_kv_head,
        ffn_hidden=draw(st.integers(1, 20_000)),
        block_size=draw(st.integers(2, 100_000)),
        dropout=draw(st.floats(0, 0.99)),
        rope_theta=draw(st.floats(1, 1e9)),
        norm_eps=draw(st.floats(1e-12, 1e-2)),
    )


@given(config=configs())
def test_a_shape_survives_config_json(config):
    assert read_hf_config(json.loads(json.dumps(write_hf_config(config)))) == config


def test_transformers_reads_the_same_config():
    from transformers import LlamaConfig

    ours = ModelConfig(rope_theta=123_456.0, norm_eps=1e-4)
    theirs = LlamaConfig(**write_hf_config(ours))
    assert read_hf_config(theirs.to_dict()) == ours


@pytest.mark.parametrize(
    "absent, theta",
    [(["rope_parameters"], 250_000.0), (["rope_theta"], 250_000.0), (["both"], 10_000.0)],
)
def test_both_spellings_of_theta_are_read_with_llamas_default(absent, theta):
    config = write_hf_config(ModelConfig(rope_theta=250_000.0))
    for key in ["rope_theta", "rope_parameters"] if absent == ["both"] else absent:
        del config[key]
    assert read_hf_config(config).rope_theta == theta


def test_without_key_value_heads_there_is_one_per_query_head():
    config = write_hf_config(ModelConfig(n_kv_head=2))
    del config["num_key_value_heads"]
    assert read_hf_config(config).n_kv_head == 14


@given(vocab=st.integers(1, 300_000))
def test_the_vocabulary_is_padded_to_the_next_multiple_of_128(vocab):
    padded = ModelConfig(vocab_size=vocab).padded_vocab_size
    assert padded % 128 == 0
    assert vocab <= padded < vocab + 128


def test_a_config_is_immutable():
    with pytest.raises(FrozenInstanceError):
        PRESETS["1b"].n_layer = 25  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong, parts",
    [
        ({"n_embd": 100, "n_head": 14}, ["n_embd 100", "14 heads", "n_head", "7.14286"]),
        ({"n_embd": 42, "n_head": 14}, ["n_embd 42", "14 heads", "even"]),
        ({"n_head": 14, "n_kv_head": 3}, ["14 query heads", "3 key/value", "divisor of 14"]),
        ({"n_layer": 0}, ["n_layer is 0", "at least 1"]),
        ({"vocab_size": -5}, ["vocab_size is -5", "at least 1"]),
        ({"block_size": 1}, ["block_size is 1", "at least 2"]),
        ({"dropout": 1.0}, ["dropout is 1.0", "at least 0 and less than 1"]),
        ({"dropout": -0.1}, ["dropout is -0.1", "at least 0 and less than 1"]),
    ],
)
def test_an_impossible_shape_is_refused(wrong, parts):
    for build in (ModelConfig, GPT):
        with pytest.raises(ValueError) as error:
            build(**wrong)
        message = str(error.value)
        assert "\n" not in message
        assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "unsupported, parts",
    [
        ({"model_type": "gpt2"}, ["model_type", "'gpt2'"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "'gelu'"]),
        ({"head_dim": 63}, ["head_dim is 63", "even"]),
        ({"rope_parameters": {"rope_type": "longrope"}}, ["rope_type", "'longrope'"]),
        ({"rope_parameters": {"rope_type": "llama3", "beta_fast": 3}}, ["beta_fast = 3"]),
    ],
)
def test_an_unsupported_model_is_refused(unsupported, parts):
    with pytest.raises(ValueError) as error:
        read_hf_config({**write_hf_config(ModelConfig()), **unsupported})
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "rms_norm_eps"])
def test_a_missing_size_is_refused(key):
    config = write_hf_config(ModelConfig())
    del config[key]
    with pytest.raises(ValueError, match=key):
        read_hf_config(config)


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_scaled_rope_is_read_in_the_older_spelling(key):
    config = write_hf_config(ModelConfig())
    del config["rope_parameters"]
    read = read_hf_config({**config, "rope_scaling": {key: "linear", "factor": 8.0}})
    assert read == ModelConfig(rope_scaling=RopeScaling(kind="linear", factor=8.0))
    with pytest.raises(ValueError, match="'dynamic'"):
        read_hf_config({**config, "rope_scaling": {key: "dynamic", "factor": 8.0}})


@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads", "rope_theta"])
def test_null_means_absent(key):
    config = write_hf_config(ModelConfig(n_kv_head=14))
    assert asdict(read_hf_config({**config, key: None})) == asdict(ModelConfig(n_kv_head=14))


@pytest.mark.parametrize("key", ["hidden_size", "rms_norm_eps"])
def test_a_value_of_the_wrong_type_is_refused(key):
    with pytest.raises(ValueError, match=key):
        read_hf_config({**write_hf_config(ModelConfig()), key: "128"})
