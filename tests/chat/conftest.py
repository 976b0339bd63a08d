"""Engines with scripted answers, and a terminal that runs `gnano chat` with them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chat.terminal import ForkServer, Terminal
from tests.fakes.scripted_model import teach

from gnano.chat.conversation import ChatSettings
from gnano.data.sft.chat_template import ChatTemplate, save_template
from gnano.infer.engine import Engine
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

TEMPLATE = ChatTemplate(user="[Ask4] {content}\n")
GREEDY = ChatSettings(temperature=0)
UNICODE = "e\u0301 東🙂"  # characters of one to four bytes; no token occurs twice


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are bytes."""
    return train_bpe(["a b"], 257)


class RecordingEngine(Engine):
    """An engine that records the ids of its prompts."""

    prompts: list[list[int]]

    def stream(self, prompt: Any, *arguments: Any, **options: Any) -> Any:
        self.prompts = [*getattr(self, "prompts", []), list(prompt)]
        return super().stream(prompt, *arguments, **options)


MakeEngine = Callable[..., RecordingEngine]


@pytest.fixture
def make_engine(byte_tokenizer: Tokenizer) -> MakeEngine:
    """Return a function that makes a small random engine, or one with a scripted answer."""

    def make(
        answer: str | None = None, endless: bool = False, block_size: int = 128
    ) -> RecordingEngine:
        torch.manual_seed(0)
        model = GPT(
            vocab_size=byte_tokenizer.vocab_size,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_kv_head=2,
            ffn_hidden=96,
            block_size=block_size,
        )
        if answer is not None:
            teach(model, byte_tokenizer, answer, endless)
        return RecordingEngine(model, byte_tokenizer)

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Engine], Path]:
    """Return a function that saves an engine as a checkpoint with `TEMPLATE`."""

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
    """Return a function that starts `gnano chat` with an engine in a terminal."""
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
    """Return the messages of a saved conversation."""
    found: list[dict[str, object]] = json.loads(path.read_text("utf-8"))["messages"]
    return found
