from pathlib import Path

import pytest
import torch
from tests.infer.conftest import TEXTS

from gnano.export.tensor_file import ExportSource, load_export_source
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 300)


@pytest.fixture(scope="session")
def checkpoint(tokenizer, tmp_path_factory) -> Path:
    """A model folder; its queries and keys are large, so that a wrong rotation shows."""
    torch.manual_seed(0)
    shape = dict(n_embd=64, n_layer=2, n_head=4, n_kv_head=2, ffn_hidden=96, block_size=96)
    model = GPT(vocab_size=tokenizer.vocab_size, rope_theta=20_000.0, norm_eps=1e-5, **shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(5) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(2)
    folder: Path = tmp_path_factory.mktemp("models") / "small"
    tokenizer.save(folder, model.config.block_size)
    save_model(model, folder, tokenizer.end_of_text_id)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def source(checkpoint) -> ExportSource:
    return load_export_source(checkpoint)


@pytest.fixture(scope="session")
def ids(tokenizer) -> torch.Tensor:
    text = "Once upon a time there was naïve 東京 🙂, and it read 12 words"
    return torch.tensor([[tokenizer.end_of_text_id, *tokenizer.encode(text)]])
