"""The published checkpoint, compared with a model written only from its description."""

import pytest
import torch
import torch.nn.functional as F

from gnano.config.model_config import ModelConfig
from gnano.model.hf_io import load_model, save_model
from gnano.model.transformer import GPT

CONFIG = ModelConfig(
    vocab_size=131, n_embd=64, n_layer=2, n_head=4, n_kv_head=2, ffn_hidden=96, block_size=32
)


def turns(config: ModelConfig) -> torch.Tensor:
    """Rotate pairs of neighboring channels by the complex numbers `freqs_cis` [T, E/2]."""
    pairs = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
    angles = torch.outer(torch.arange(config.block_size).double(), config.rope_theta**-pairs)
    return torch.polar(torch.ones_like(angles), angles)


def published(config: ModelConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    D, F_, V = config.n_embd, config.ffn_hidden, config.vocab_size
    kv = config.n_kv_head * config.head_size
    shapes: dict[str, tuple[int, ...]] = {"token_embedding_table": (V, D)}
    for n in range(config.n_layer):
        shapes |= {
            f"blocks.{n}.attention_norm": (D,),
            f"blocks.{n}.attention.wq": (D, D),
            f"blocks.{n}.attention.wk": (kv, D),
            f"blocks.{n}.attention.wv": (kv, D),
            f"blocks.{n}.attention.wo": (D, D),
            f"blocks.{n}.ffn_norm": (D,),
            f"blocks.{n}.feed_forward.w1": (F_, D),
            f"blocks.{n}.feed_forward.w2": (F_, D),
            f"blocks.{n}.feed_forward.w3": (D, F_),
        }
    shapes |= {"norm": (D,), "lm_head": (V, D)}
    weights = {
        f"{name}.weight": torch.randn(shape, generator=generator) * 0.15 + (len(shape) == 1)
        for name, shape in shapes.items()
    }
    return weights | {"freqs_cis": turns(config).to(torch.complex64)}


def reference(weights: dict[str, torch.Tensor], config: ModelConfig, ids: torch.Tensor):
    """Return logits in float64 from the published tensors."""
    w = {name: tensor.double() for name, tensor in weights.items() if name != "freqs_cis"}
    B, T = ids.shape

    def norm(x, name):
        return x * (x.pow(2).mean(-1, keepdim=True) + config.norm_eps).rsqrt() * w[name]

    def heads(x, count):
        return x.view(B, T, count, config.head_size).transpose(1, 2)

    def turn(x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turns(config)[:T]).flatten(-2)

    x = w["token_embedding_table.weight"][ids]
    for n in range(config.n_layer):
        block = f"blocks.{n}"
        y = norm(x, f"{block}.attention_norm.weight")
        q, k, v = (y @ w[f"{block}.attention.{name}.weight"].T for name in ("wq", "wk", "wv"))
        q, k = turn(heads(q, config.n_head)), turn(heads(k, config.n_kv_head))
        share = config.n_head // config.n_kv_head
        k = k.repeat_interleave(share, dim=1)
        v = heads(v, config.n_kv_head).repeat_interleave(share, dim=1)
        scores = q @ k.transpose(-1, -2) / config.head_size**0.5
        unseen = torch.ones(T, T, dtype=torch.bool).triu(1)
        seen = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v
        x = x + seen.transpose(1, 2).flatten(2) @ w[f"{block}.attention.wo.weight"].T
        y = norm(x, f"{block}.ffn_norm.weight")
        gate, up = (y @ w[f"{block}.feed_forward.{name}.weight"].T for name in ("w1", "w2"))
        x = x + (F.silu(gate) * up) @ w[f"{block}.feed_forward.w3.weight"].T
    return norm(x, "norm.weight") @ w["lm_head.weight"].T


def test_the_published_checkpoint_has_the_same_logits_here(tmp_path):
    weights = published(CONFIG)
    model = GPT.from_config(CONFIG)
    model.load_state_dict(weights)
    ids = torch.randint(CONFIG.vocab_size, (3, 32), generator=torch.Generator().manual_seed(1))
    expected = reference(weights, CONFIG, ids).float()
    with torch.no_grad():
        torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=0)
        save_model(model, tmp_path, eos_token_id=0)
        torch.testing.assert_close(load_model(tmp_path)(ids), expected, atol=1e-4, rtol=0)


def test_loading_does_not_change_the_given_tensors():
    weights = published(CONFIG)
    copy = {name: tensor.clone() for name, tensor in weights.items()}
    GPT.from_config(CONFIG).load_state_dict(weights)
    assert weights.keys() == copy.keys()
    assert all(torch.equal(weights[name], copy[name]) for name in copy)


@pytest.mark.parametrize(
    "name",
    ["blocks.0.attention.wz.weight", "blocks.1.attention.wq.bias", "layers.0.ffn_norm.weight"],
)
def test_an_unknown_published_tensor_is_refused(name):
    weights = published(CONFIG) | {name: torch.zeros(64)}
    with pytest.raises(ValueError) as refusal:
        GPT.from_config(CONFIG).load_state_dict(weights)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_published_tensor_is_refused():
    weights = published(CONFIG)
    del weights["blocks.1.feed_forward.w2.weight"]
    with pytest.raises(RuntimeError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        GPT.from_config(CONFIG).load_state_dict(weights)
