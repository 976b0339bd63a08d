import random
from collections.abc import Callable
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

REAL = Path(__file__).parents[3] / "shared/data/evals"
COLOURS = "red blue green yellow brown grey black white".split()
THINGS = "stone bird house river road letter song light".split()


def made_items(count: int = 200, seed: int = 0) -> list[EvalItem]:
    """Questions of our own, of which one of four answers is right; none is twice."""
    draw = random.Random(seed)
    items = []
    for number in range(count):
        colours = draw.sample(COLOURS, 4)
        answers = [f"the {colour} one in the {draw.choice(THINGS)} shop" for colour in colours]
        question = f"Question: Which {draw.choice(THINGS)} has number {number}?\nAnswer:"
        items.append(EvalItem((question,), tuple(answers), draw.randrange(4)))
    return items


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    """A tokenizer that knows the words of such items."""
    return train_bpe([item.solved_text for item in made_items()] * 2, 400)


def small_model(vocab_size: int, block_size: int = 128, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(
        vocab_size=vocab_size,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_kv_head=2,
        ffn_hidden=128,
        block_size=block_size,
    )


def learned(model: GPT, tokenizer: Tokenizer, items: list[EvalItem], steps: int) -> GPT:
    """The model, trained on the items and their right answers until it knows them by heart."""
    start, context = tokenizer.end_of_text_id, model.config.block_size
    texts = [[start, *tokenizer.encode(item.solved_text)][-(context + 1) :] for item in items]
    width = max(map(len, texts))
    ids = torch.tensor([text + [start] * (width - len(text)) for text in texts])
    targets = torch.tensor([text + [-100] * (width - len(text)) for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randint(len(texts), (16,), generator=draw)
        loss = model.loss(ids[some, :-1], targets[some, 1:]) / (targets[some, 1:] != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def saved_model(words: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a random model whose likeliest answers are clearly ahead."""
    model = small_model(words.vocab_size, 1_024)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
    folder = tmp_path_factory.mktemp("model") / "random"
    words.save(folder)
    save_model(model, folder, words.end_of_text_id)
    return folder


@pytest.fixture
def pythia(tmp_path: Path) -> Path:
    """A small Pythia, with a tokenizer of its own."""
    tokenizer = train_bpe([item.solved_text for item in made_items(20)], 280)
    tokenizer.save(tmp_path / "pythia")
    torch.manual_seed(2)
    config = GPTNeoXConfig(
        vocab_size=280,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.2,
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "pythia")
    return tmp_path / "pythia"


@pytest.fixture
def real_items() -> Callable[[str, int], list[EvalItem]]:
    """So many items of a real file; skips where it is not there."""

    def read(name: str, count: int) -> list[EvalItem]:
        if not REAL.is_dir():
            pytest.skip(f"the real items are not at {REAL}")
        (sheet,) = load_tasks([], [str(REAL / name)], limit=count)
        return list(sheet.items)

    return read
