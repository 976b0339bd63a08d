"""A GGUF file's tokenizer is not trusted; `test_gguf_file` runs real ones in llama.cpp."""

from pathlib import Path

import pytest

from gnano.export.gguf_tokenizer import read_tokenizer

pytest.importorskip("gguf", reason="the package gguf (extra gguf) is not installed")
SOUND = {
    "model": "llama",
    "tokens": ["<unk>", "<s>", "</s>", "a", "b", "ab"],
    "token_type": [2, 3, 3, 1, 1, 1],
    "scores": [0.0, 0.0, 0.0, 0.0, 0.0, -1.0],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "add_space_prefix": False,
}


def read(changes):
    metadata = {f"tokenizer.ggml.{key}": value for key, value in (SOUND | changes).items()}
    return read_tokenizer(metadata.get, Path("model.gguf"))


def test_a_sound_one_is_read():
    tokenizer = read({})
    assert tokenizer.encode("abb") == [5, 4] and tokenizer.eos_ids == (2,)
    assert tokenizer.bos_ids == (1,)  # SentencePiece's default
    assert read({"add_bos_token": False}).bos_ids == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "of the kind 'bert'"),
        ({"model": "gpt2", "pre": "dbrx"}, "with the split 'dbrx'"),
        ({"tokens": ["a"] * 6}, "two of its tokens are the same"),
        ({"tokens": None}, "lists no tokens"),
        ({"scores": [0.0]}, "its tokenizer cannot be used"),
        ({"token_type": [2, 3]}, "its tokenizer cannot be used"),
        ({"eos_token_id": 99}, "its tokenizer cannot be used"),
        ({"bos_token_id": None}, "its tokenizer cannot be used"),
    ],
)
def test_one_that_contradicts_itself_is_refused_with_the_files_name(changes, message):
    with pytest.raises(ValueError, match=f"^model.gguf .*{message}|^model.gguf: .*{message}"):
        read(changes)
