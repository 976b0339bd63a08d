"""Text is encoded and decoded unchanged; end-of-text is separate from text."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

END = "<|endoftext|>"
spiked = st.lists(st.text() | st.sampled_from([END, "<|", "|>", " ", "\r\n", "'s"])).map("".join)
unhurried = settings(deadline=None, max_examples=50)  # the first example builds the tokenizer


@unhurried
@given(text=spiked)
def test_every_text_is_decoded_unchanged(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@unhurried
@given(text=spiked)
def test_text_never_becomes_end_of_text(tokenizer, text):
    assert tokenizer.end_of_text_id not in tokenizer.encode(text + END + text)


@unhurried
@given(text=spiked)
def test_token_bytes_sum_to_the_bytes_of_the_text(tokenizer, text):
    assert tokenizer.token_bytes[tokenizer.encode(text)].sum() == len(text.encode())


@unhurried
@given(text=spiked)
def test_encode_array_has_the_ids_of_encode(tokenizer, text):
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_encode_array_of_a_very_long_text(tokenizer):
    text = "words and <|endoftext|> " * 22_000
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_end_of_text_is_decoded_only_on_request(tokenizer):
    ids = [*tokenizer.encode("one"), tokenizer.end_of_text_id, *tokenizer.encode("two")]
    assert tokenizer.decode(ids) == "onetwo"
    assert tokenizer.decode(ids, show_end_of_text=True) == f"one{END}two"
    assert tokenizer.decode_bytes(ids) == b"onetwo"


def test_only_end_of_text_has_no_bytes(tokenizer):
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert np.flatnonzero(tokenizer.token_bytes == 0).tolist() == [tokenizer.end_of_text_id]


def test_each_byte_of_a_cut_character_survives(tokenizer):
    ids = tokenizer.encode("🦦")
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids) == "🦦".encode()
    assert tokenizer.decode(ids[:1]) == "\ufffd"


def test_ids_may_come_as_numpy_integers(tokenizer):
    assert tokenizer.decode(np.array(tokenizer.encode("shards"), dtype=np.uint16)) == "shards"


@pytest.mark.parametrize("wrong", [-100, -1, 50_304])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, wrong):
    with pytest.raises(ValueError, match=f"Id {wrong} is outside"):
        tokenizer.decode([0, wrong])


def test_lone_surrogates_are_encoded(tokenizer):
    alone, pair = json.loads(r'["a\ud83db", ["a\ud83d", "\ude42b"]]')
    assert tokenizer.decode(tokenizer.encode(alone)) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("".join(pair))) == "a🙂b"


@pytest.mark.slow
def test_a_million_spaces_are_encoded(gpt2_tokenizer):
    text = "a" + " " * 1_000_001 + "b"  # tiktoken alone panics on it
    assert gpt2_tokenizer.decode(gpt2_tokenizer.encode(text)) == text
