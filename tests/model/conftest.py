from typing import Any

import pytest
import torch

from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT


@pytest.fixture
def make_model():
    """A small random model; `shape` are GPT's own arguments.

    At the usual initial scale attention is nearly flat and the norms are all ones: a wrong
    mask, turn or permutation would hardly show. Matrices five times as large make it show.
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
    """What `transformers` makes of the folder that we save."""

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
