"""A recipe may name Python code that generates its data."""

import sys

import pytest

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.data.generators import iter_items, load_generator
from gnano.data.readers import Document
from gnano.data.sft.record_loading import load_conversations, load_preferences

MODULE = """
from itertools import count
from gnano.data.readers import Document
from gnano.data.generators import SourceGenerator
from gnano.data.sft.conversations import Conversation, Turn

def squares():
    for n in count():
        yield Document(f"The square of {n} is {n * n}.")

def questions():
    for n in count():
        yield Conversation((Turn("user", f"{n} + 1?"), Turn("assistant", f"{n + 1}")))

def cubes():
    return (Document(f"The cube of {n} is {n * n * n}.") for n in range(200))

CUBES = SourceGenerator(cubes, identity=lambda: "cubes, version 1")
SQUARES = SourceGenerator(squares, identity=lambda: "squares, version 1")
QUESTIONS = SourceGenerator(questions, identity=lambda: "questions, version 1")
called = []
def FUNCTION():
    called.append(1)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_texts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield "their_texts"
    sys.modules.pop("their_texts", None)


@pytest.mark.parametrize("workers", [1, 2])
def test_custom_texts_are_prepared(module, prepared, tmp_path, tokenizer_folder, workers):
    squares, cubes = (
        SourceConfig(kind="generator", generator=f"{module}:{name}", max_bytes=5_000)
        for name in ("SQUARES", "CUBES")
    )
    config = DataConfig(
        folder=str(tmp_path / "prepared"),
        tokenizer=tokenizer_folder,
        workers=workers,
        heldout_fraction=0.01,
        sources={"squares": squares, "cubes": cubes},
    )
    done = prepared(config)
    both = done.training_documents("squares") + done.heldout_documents("squares")
    assert "The square of 12 is 144." in both
    assert len(done.training_documents("cubes")) > 100


def test_custom_conversations_are_loaded_up_to_the_limit(module):
    questions = InstructionSource(kind="generator", generator=f"{module}:QUESTIONS", max_records=20)
    config = InstructionConfig(heldout_fraction=0, sources={"sums": questions})
    assert len(load_conversations(config).train["sums"]) == 20
    with pytest.raises(ValueError, match="gives Conversation; Preference is needed"):
        load_preferences(config)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("their_texts:FUNCTION", "is function; a gnano.data.generators.SourceGenerator is needed"),
        ("their_texts:MISSING", "cannot be imported: .*MISSING"),
        ("no_such_module:A", "cannot be imported: No module named 'no_such_module'"),
        ("os:getcwd", "is builtin_function_or_method; a gnano"),
    ],
)
def test_another_object_is_refused_and_not_called(module, path, error):
    with pytest.raises(ValueError, match=error):
        load_generator(path)
    assert not sys.modules.get(module) or sys.modules[module].called == []


def test_an_item_of_another_type_is_refused(module):
    with pytest.raises(ValueError, match="gives Conversation; Document is needed"):
        next(iter_items(f"{module}:QUESTIONS", Document))
