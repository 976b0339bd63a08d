"""The ids are those of tiktoken and Hugging Face."""

import json

import pytest
import tiktoken
import tiktoken.load
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

AWKWARD = [
    "",
    " ",
    "Hello world",
    "  leading,   many     spaces and trailing   ",
    "line\nline\r\nline\r\n\r\n\ttab\t\t\x0b\x0c end\n\n\n",
    "blanks , before . marks ! do n't vanish ?",
    "it's we'll I'd they've 'tis IT'S o'clock ''' 's",
    "x=3.14159; y+=1_000_000 # ½ ² Ⅳ ٣",
    "naïve café Ærøskøbing ẞ İstanbul",
    "cafe\u0301 a\u0308\u0323 n\u0303",
    "漢字とかな 한국어 中文，标点。",
    "עברית العربية हिन्दी ไทย",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷👍🏽",
    "zero\u200bwidth\u200djoiner\u2060\ufeffbom\u00adsoft",
    "no\u00a0break\u3000ideographic\u2028separator\u2029end",
    "\x00\x01\x7f\x80\x9f\ufffd\uffff\U0010ffff",
    "<|endoftext|>",
    "a <|endoftext|> b<|endoftext|>",
    "def f(x):\n    return {\n        'a': x ** 2,\n    }\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 8,
    "https://example.org/a?b=c&d=%20#e",
]

PUBLISHED_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@pytest.fixture(scope="module")
def tiktoken_encoding(gpt2_files):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # else it would cache local files, too
        patch.setattr(tiktoken.load, "read_file", lambda name: (gpt2_files / name).read_bytes())
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks("vocab.bpe", "encoder.json")
    return tiktoken.Encoding(
        "truth", pat_str=PUBLISHED_SPLIT, mergeable_ranks=ranks, special_tokens={}
    )


@pytest.fixture(scope="module")
def hf_tokenizer(gpt2_files):
    return ByteLevelBPETokenizer.from_file(
        str(gpt2_files / "encoder.json"), str(gpt2_files / "vocab.bpe")
    )


def test_the_gpt2_tokenizer_is_the_published_one(gpt2_tokenizer):
    assert (gpt2_tokenizer.name, gpt2_tokenizer.vocab_size, gpt2_tokenizer.end_of_text_id) == (
        "gpt2",
        50_257,
        50_256,
    )
    assert gpt2_tokenizer.encode("Hello world") == [15496, 995]
    assert gpt2_tokenizer.encode("hello world") == [31373, 995]
    assert gpt2_tokenizer.encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]


@pytest.mark.parametrize("text", AWKWARD)
def test_gpt2_ids_are_those_of_tiktoken_and_hugging_face(
    gpt2_tokenizer, tiktoken_encoding, hf_tokenizer, text
):
    ids = gpt2_tokenizer.encode(text)
    assert ids == tiktoken_encoding.encode_ordinary(text)
    assert ids == hf_tokenizer.encode(text).ids


@settings(deadline=None, max_examples=300)
@given(text=st.text())
def test_gpt2_ids_are_those_of_tiktoken_for_any_text(gpt2_tokenizer, tiktoken_encoding, text):
    assert gpt2_tokenizer.encode(text) == tiktoken_encoding.encode_ordinary(text)


def test_a_long_text_has_the_ids_of_its_parts(gpt2_tokenizer, tiktoken_encoding):
    text = " ".join(AWKWARD) * 800  # above the length that is left to the slower library
    assert len(text) > 500_000
    assert gpt2_tokenizer.encode(text) == tiktoken_encoding.encode_ordinary(text)


@pytest.mark.slow
@pytest.mark.parametrize("config", [None, {"model_type": "llama"}], ids=["alone", "checkpoint"])
def test_transformers_gives_the_same_ids_from_the_saved_folder(tokenizer, tmp_path, config):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path, max_length=1024)
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    # there, and only there, a typed <|endoftext|> is the control token
    for text in [text for text in AWKWARD if "<|endoftext|>" not in text]:
        assert theirs(text).input_ids == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert theirs.bos_token_id == theirs.eos_token_id == tokenizer.end_of_text_id
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.model_max_length == 1024
    assert theirs.clean_up_tokenization_spaces is False  # True would eat the blank before a "."
