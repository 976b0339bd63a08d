"""Checkpoints that say what a test wants, and a terminal to talk with them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chat.terminal import ForkServer, Terminal
from tests.fakes.scripted_model import teach

from gnano.chat.conversation import ChatSettings
from gnano.config.inference_config import SamplingParams
from gnano.data.sft.chat_template import ChatTemplate, save_template
from gnano.infer.engine import Engine
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

TEMPLATE = ChatTemplate(user="[Ask4] {content}\n")
LIKELIEST = ChatSettings(
    sampling=SamplingParams(temperature=0)
)  # what a model was made to say, it says
UNICODE = "e\u0301 東🙂"  # a combining accent, three bytes, four bytes: none of them twice


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    """Each byte is a token."""
    return train_bpe(["a b"], 257)


class Listening(Engine):
    """An engine that remembers what it was asked."""

    heard: list[list[int]]

    def stream_token_ids(self, prompt: Any, *arguments: Any, **options: Any) -> Iterator[int]:
        self.heard = [*getattr(self, "heard", []), list(prompt)]
        return super().stream_token_ids(prompt, *arguments, **options)


MakeEngine = Callable[..., Listening]


@pytest.fixture
def make_engine(letters: Tokenizer) -> MakeEngine:
    """A small model with random weights, or one that says this, again and again or once."""

    def make(say: str | None = None, endless: bool = False, block_size: int = 128) -> Listening:
        torch.manual_seed(0)
        model = GPT(
            vocab_size=letters.vocab_size,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_kv_head=2,
            ffn_hidden=96,
            block_size=block_size,
        )
        if say is not None:
            teach(model, letters, say, endless)
        return Listening(model, letters)

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Engine], Path]:
    """A checkpoint of the engine, tuned with `TEMPLATE` as it says."""

    def save(engine: Engine) -> Path:
        folder = tmp_path / "tuned"
        engine.tokenizer.save(folder)
        save_model(engine.model, folder, engine.tokenizer.end_of_text_id)
        save_template(TEMPLATE, folder)
        return folder

    return save


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture
def chat(
    server: ForkServer, save: Callable[[Engine], Path], tmp_path: Path
) -> Iterator[Callable[..., Terminal]]:
    """`gnano chat` with the engine, in a terminal of its own."""
    opened: list[Terminal] = []

    def chat(engine: Engine, *options: str, **how: str) -> Terminal:
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        arguments = ["chat", str(save(engine)), "--temperature", "0", *options]
        opened.append(Terminal(server, arguments, {**state, **how}))
        return opened[-1]

    yield chat
    for terminal in opened:
        terminal.close()


def messages(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text("utf-8"))["messages"]
    return found
