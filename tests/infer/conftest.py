"""A small random engine, and the sampling functions for one row."""

import pytest
import torch

from gnano.infer.engine import Engine
from gnano.infer.sampling import TokenHistory, apply_penalties, sample_tokens, truncated_weights
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.train_bpe import train_bpe

TEXTS = [
    "Once upon a time there was a small engine that read one word after another.",
    "It read, it thought, and it wrote the next word; then it read what it had written.",
    "Überall naïve Cafés, 東京 and 🙂: it took them byte by byte, and broke none of them.",
] * 3


def generate_ids(engine, prompt, max_new_tokens, sampling, **options):
    """Return the ids of a stream that is read to its end."""
    ids = []
    for _, sequence in engine.stream(prompt, max_new_tokens, sampling, **options):
        ids = sequence.output_ids
    return ids


def make_generator(seed):
    """Return a random generator; None seeds it from the operating system."""
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    return generator


def choose(logits_V, sampling, generator, history=None):
    """Sample the token of a single row."""
    return sample_tokens(logits_V[None], [sampling], [generator], [history])[0]


def probabilities(logits_V, sampling, history=None):
    """Return the distribution that a token is drawn from: [V] in fp32, 0 for excluded ids."""
    logits_V = logits_V.float().clone()
    apply_penalties(logits_V, sampling, history or TokenHistory([], sampling))
    if sampling.temperature == 0:
        return torch.zeros_like(logits_V).index_fill_(0, logits_V.argmax(), 1.0)
    weights, order = truncated_weights(logits_V[None], [sampling])
    shares = weights[0] / weights[0].sum()
    return shares if order is None else torch.zeros_like(logits_V).scatter_(0, order[0], shares)


@pytest.fixture(scope="session")
def tokenizer():
    return train_bpe(TEXTS, 300)


@pytest.fixture
def make_engine(tokenizer):
    """Return a function that makes an engine with a small random model.

    Its matrices are five times as large as at initialization, so that the likeliest token leads
    clearly and texts differ.
    """

    def make(seed: int = 0, block_size: int = 96) -> Engine:
        torch.manual_seed(seed)
        model = GPT(
            vocab_size=tokenizer.vocab_size,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_kv_head=2,
            ffn_hidden=96,
            block_size=block_size,
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(5) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
        return Engine(model, tokenizer)

    return make


@pytest.fixture
def engine(make_engine):
    return make_engine()


@pytest.fixture
def save_engine(tmp_path):
    """Return a function that saves an engine as a checkpoint folder."""

    def save(engine: Engine):
        folder = tmp_path / "saved"
        engine.tokenizer.save(folder)
        save_model(engine.model, folder, engine.tokenizer.end_of_text_id)
        return folder

    return save


@pytest.fixture
def graphs_only(monkeypatch):
    """Compile to a graph without generating code, which takes much longer."""
    compile = torch.compile

    def without_code(function, **options):
        return compile(function, fullgraph=options["fullgraph"], backend="aot_eager")

    monkeypatch.setattr(torch, "compile", without_code)
