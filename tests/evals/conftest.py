"""Fixtures of the evaluation tests: items with known answers, and small models."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tests.infer.conftest import engine, make_engine, save_engine, tokenizer
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from gnano.evals.eval_tasks import EvalItem, load_tasks
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

__all__ = ["engine", "make_engine", "save_engine", "tokenizer"]

REAL_ITEMS = Path(__file__).parents[3] / "shared/data/evals"
COLORS = "red blue green yellow brown grey black white".split()
THINGS = "stone bird house river road letter song light".split()
NUM_KNOWN = 40  # items that the trained model has memorized


def made_items(count: int = 200, seed: int = 0) -> list[EvalItem]:
    """Return different generated questions with four answers, of which one is right."""
    rng = random.Random(seed)
    items = []
    for number in range(count):
        colors = rng.sample(COLORS, 4)
        answers = [f"the {color} one in the {rng.choice(THINGS)} shop" for color in colors]
        question = f"Question: Which {rng.choice(THINGS)} has number {number}?\nAnswer:"
        items.append(EvalItem((question,), tuple(answers), rng.randrange(4)))
    return items


def write_items(path: Path, items: Sequence[EvalItem]) -> Path:
    """Write items with plain columns as JSONL."""
    rows = [{"query": i.contexts[0], "choices": list(i.answers), "gold": i.gold} for i in items]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    """A tokenizer trained on the generated items."""
    return train_bpe([item.solved_text for item in made_items()] * 2, 400)


def small_model(vocab_size: int, block_size: int = 128, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(
        vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_kv_head=2, ffn_hidden=128,
        block_size=block_size,
    )  # fmt: skip


@pytest.fixture(scope="session")
def trained_model(words: Tokenizer) -> GPT:
    """A model that has memorized the right answers of the first `NUM_KNOWN` items."""
    model, start = small_model(words.vocab_size), words.end_of_text_id
    texts = [[start, *words.encode(item.solved_text)] for item in made_items()[:NUM_KNOWN]]
    width = max(map(len, texts))
    ids = torch.tensor([text + [start] * (width - len(text)) for text in texts])
    targets = torch.tensor([text + [-100] * (width - len(text)) for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        rows = torch.randint(len(texts), (16,), generator=generator)
        loss = model.loss(ids[rows, :-1], targets[rows, 1:]) / (targets[rows, 1:] != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def saved_model(words: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a random model whose answers differ clearly in likelihood."""
    model = small_model(words.vocab_size, 1_024)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
    folder = tmp_path_factory.mktemp("model") / "random"
    words.save(folder)
    save_model(model, folder, words.end_of_text_id)
    return folder


@pytest.fixture(scope="session")
def pythia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Pythia with its own tokenizer."""
    folder = tmp_path_factory.mktemp("foreign") / "pythia"
    train_bpe([item.solved_text for item in made_items(20)], 280).save(folder)
    torch.manual_seed(2)
    config = GPTNeoXConfig(
        vocab_size=280, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=48, initializer_range=0.2,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def real_items() -> Callable[[str, int], list[EvalItem]]:
    """Load items of a real file; skip the test where the file is not available."""

    def read(name: str, count: int) -> list[EvalItem]:
        if not REAL_ITEMS.is_dir():
            pytest.skip(f"the real items are not at {REAL_ITEMS}")
        (task,) = load_tasks([], [str(REAL_ITEMS / name)], limit=count)
        return list(task.items)

    return read
