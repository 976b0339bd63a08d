"""A small random model, and its counterpart in transformers."""

from typing import Any

import pytest
import torch

from gnano.config.model_config import LoraConfig
from gnano.model.hf_io import save_model
from gnano.model.lora import add_lora
from gnano.model.transformer import GPT


@pytest.fixture
def make_model():
    """Return a function that makes a small random model; `shape` are arguments of GPT.

    At the usual initial scale attention is nearly flat and the norms are all ones, so that a
    wrong mask, rotation or permutation would hardly show. Matrices are five times as large.
    """

    def make(seed: int = 0, **shape: Any) -> GPT:
        small = {"vocab_size": 131, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_kv_head": 2}
        torch.manual_seed(seed)
        model = GPT(**{**small, "ffn_hidden": 96, "block_size": 40, **shape})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(5) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
        return model.eval()

    return make


@pytest.fixture
def as_transformers(tmp_path):
    """Return a function that saves a model and loads it in transformers."""

    def load(model: GPT):
        from transformers import LlamaForCausalLM

        folder = tmp_path / "as-transformers"
        folder.mkdir()
        save_model(model, folder, eos_token_id=0)
        return LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()

    return load


@pytest.fixture
def random_ids():
    def draw(model: GPT, batch: int, length: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(model.config.vocab_size, (batch, length), generator=generator)

    return draw


ADAPTER_CONFIG = LoraConfig(rank=3, alpha=7.0)


@pytest.fixture
def tuned(make_model):
    """Return a function that makes a model with a trained adapter: B is not zero."""

    def make(config: LoraConfig = ADAPTER_CONFIG) -> GPT:
        model: GPT = make_model()
        add_lora(model, config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("lora_B.weight"):
                    parameter.normal_(std=0.2)
        return model

    return make
