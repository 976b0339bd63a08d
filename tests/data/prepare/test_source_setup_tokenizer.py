"""The tokenizer of a data folder: given or trained on its corpus, and never replaced."""

from pathlib import Path

import pytest
from tests.data.conftest import numbered

from gnano.data.manifest import is_heldout
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import Document
from gnano.tokenizer.bpe import END_OF_TEXT, UNICODE_TO_BYTE, Tokenizer


def test_a_replaced_tokenizer_is_refused(make, mix):
    config = make(tokenizer="bpe-300", a=mix.texts("a"), b=mix.texts("b"))
    prepare(config)
    mix.tokenizer.save(Path(config.folder))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not the tokenizer that made"):
        prepare(config)


@pytest.mark.parametrize("tokenizer", ["llama", "bpe-", "bpe-x", "bpe-²", "gpt3", "nowhere/at/all"])
def test_an_unknown_tokenizer_is_named(make, tokenizer):
    with pytest.raises(ValueError, match=f"data.tokenizer is '{tokenizer}'"):
        prepare(make(tokenizer=tokenizer, a=numbered(0, 20)))


@pytest.mark.parametrize("size", [1, 256, 70_000])
def test_a_vocabulary_size_out_of_bounds_is_refused(make, size):
    with pytest.raises(ValueError, match=f"{size:,}.*257"):
        prepare(make(tokenizer=f"bpe-{size}", a=numbered(0, 20)))


def test_a_vocabulary_too_large_for_16_bits_is_refused(make, tmp_path):
    pairs = [x + y for x in UNICODE_TO_BYTE for y in UNICODE_TO_BYTE]
    vocab = {word: n for n, word in enumerate([*UNICODE_TO_BYTE, *pairs, END_OF_TEXT])}
    Tokenizer(vocab, []).save(tmp_path / "large")
    with pytest.raises(ValueError, match="65,793"):
        prepare(make(tokenizer=str(tmp_path / "large"), a=numbered(0, 20)))


@pytest.mark.parametrize("heldout", [0.3, 0])
def test_the_tokenizer_is_trained_on_training_text_only(make, mix, heldout):
    marker = "QZX" * 400
    marked = next(text for n in range(100) if is_heldout(Document(text := f"{n} {marker}"), 0.3))
    config = make(tokenizer="bpe-300", a=[*mix.texts("a"), marked], heldout=heldout)
    prepare(config)
    tokens = len(Tokenizer.load(Path(config.folder)).encode("QZXQZX"))
    assert tokens == 6 if heldout else tokens < 3  # if not held out, it is learnt


def test_two_runs_train_the_same_tokenizer(make, tree, mix):
    one, two = (make(folder, tokenizer="bpe-300", a=mix.texts("a")) for folder in ("one", "two"))
    prepare(one)
    prepare(two)
    assert tree(one.folder) == tree(two.folder)
    assert Tokenizer.load(Path(one.folder)).vocab_size == 300
