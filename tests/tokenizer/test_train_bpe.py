"""A trained vocabulary is that of the BPE algorithm, complete and reproducible."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis.strategies import characters, lists, sampled_from, text
from tokenizers import Regex, pre_tokenizers

from gnano.tokenizer.train_bpe import MAX_WORD_CHARS, WORD_PATTERN, train_bpe


def test_the_vocabulary_is_bytes_then_merges_then_end_of_text(trained_tokenizer):
    assert (
        trained_tokenizer.vocab_size,
        trained_tokenizer.name,
        trained_tokenizer.end_of_text_id,
    ) == (600, "bpe-600", 599)
    assert sorted(trained_tokenizer.decode_bytes([i]) for i in range(256)) == [
        bytes([b]) for b in range(256)
    ]
    assert all(trained_tokenizer.token_bytes[256:599] >= 2)


def test_every_merge_was_the_most_frequent_pair(tmp_path):
    text = "the cat sat on the mat; the rat that sat at the mat ate the cat's hat " * 3
    trained = train_bpe([text], 270)
    trained.save(tmp_path)
    learned = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    words = [list(word.replace(" ", "Ġ")) for word in re.findall(r"'s| ?[a-z]+| ?[;]|\s", text)]
    for left, right in learned["model"]["merges"]:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        assert pairs[left, right] == max(pairs.values())
        for word in words:
            for i in range(len(word) - 2, -1, -1):
                if word[i : i + 2] == [left, right]:
                    word[i : i + 2] = [left + right]
    assert len(learned["model"]["merges"]) == 270 - 257


def test_training_reduces_the_number_of_tokens(trained_tokenizer, corpus):
    assert sum(len(trained_tokenizer.encode_array(text)) for text in corpus) < 0.6 * len(
        "".join(corpus).encode()
    )


def test_no_token_crosses_a_word_boundary(trained_tokenizer):
    for i in range(256, 599):
        assert re.fullmatch(
            r"\s+| ?[^\W\d_]+| ?\d+| ?[^\sa-zA-Z0-9]+|'\w+", trained_tokenizer.decode([i])
        )


@settings(deadline=None)
@given(
    lists(
        text(characters(exclude_categories=["Cs"]))
        | sampled_from("'re|'ve|'d|''|\n|  |a".split("|"))
    )
)
def test_training_splits_words_like_encoding(parts):
    text = "".join(parts)
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    words = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated").pre_tokenize_str(text)
    assert [at for _, at in words] == [at for _, at in split]


@pytest.mark.parametrize("letter", ["x", "7", "=", " ", "東"])
def test_a_very_long_word_is_split(letter):
    """Otherwise each merge reads all of it, and tokens become as long as the word."""
    trained_tokenizer = train_bpe([letter * 20_000, "the river and the stone " * 20], 275)
    longest = max(
        len(trained_tokenizer.decode([id])) for id in range(trained_tokenizer.end_of_text_id)
    )
    assert MAX_WORD_CHARS // 4 < longest <= MAX_WORD_CHARS


def test_ctrl_c_interrupts_the_training():
    code = """
import hashlib, os, signal, threading
from gnano.tokenizer.train_bpe import train_bpe
def texts():
    yield str(hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1))  # native code for half an hour
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    train_bpe(texts(), 300)
except KeyboardInterrupt:
    print("heard", flush=True)
    os._exit(0)
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, timeout=120).stdout == "heard\n"


def test_two_processes_train_the_same_vocabulary():
    code = """
import heapq, inspect, textwrap
from gnano.tokenizer.train_bpe import train_bpe
corpus = (inspect.getsource(module) for module in (heapq, textwrap))
print(train_bpe(corpus, 500).fingerprint)
"""
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4")
    }
    assert len(prints) == 1
    assert re.fullmatch(r"[0-9a-f]{64}\n", prints.pop())


def test_end_of_text_in_the_corpus_is_plain_text():
    trained = train_bpe(["<|endoftext|>" * 50], 262)
    assert trained.end_of_text_id not in trained.encode("<|endoftext|>")


def test_the_smallest_vocabulary_is_the_bytes_and_end_of_text():
    assert len(train_bpe(["any text"], 257).encode("héllo")) == 6


def test_lone_surrogates_do_not_stop_the_training():
    assert train_bpe(["ab\ud83d ab ab"], 258).vocab_size == 258


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 65_536])
def test_a_size_out_of_bounds_is_refused(vocab_size):
    with pytest.raises(ValueError, match="it must be from 257"):
        train_bpe(["text"], vocab_size)


def test_a_corpus_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"gave only 260 of 300 .* vocab_size of 260 or less"):
        train_bpe(["abc abc abc"], 300)
    assert train_bpe(["abc abc abc"], 260).vocab_size == 260


@pytest.mark.parametrize("texts", [[], [""], iter(["", ""])])
def test_an_empty_corpus_is_refused(texts):
    with pytest.raises(ValueError, match="is empty"):
        train_bpe(texts, 257)


def test_a_single_string_is_refused():
    with pytest.raises(ValueError, match="Pass a list of texts"):
        train_bpe("a whole corpus", 257)


def test_nothing_is_printed_while_training(corpus, capfd):
    train_bpe(corpus, 300)
    assert capfd.readouterr() == ("", "")
