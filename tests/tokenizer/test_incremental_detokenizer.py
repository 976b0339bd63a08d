"""Incremental detokenization and stop strings."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gnano.tokenizer.bpe import IncrementalDetokenizer

MIXED = [
    "plain words",
    "naïve café, Straße",
    "東京タワー 中文 한국어",
    "🙂🇨🇭👩‍👩‍👧‍👦",
    "e\u0301 n\u0303 decomposed",
    "a\u0000b\r\n\t",
]


def split_at(data: bytes, positions) -> list[bytes]:
    borders = [0, *sorted({place % (len(data) + 1) for place in positions}), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def detokenize(pieces: list[bytes], stop=()) -> str:
    stream = IncrementalDetokenizer(stop)
    return "".join(map(stream.push, pieces)) + stream.push(b"", final=True)


@pytest.mark.parametrize("text", MIXED)
def test_a_character_appears_with_its_last_byte(text):
    stream, shown = IncrementalDetokenizer(), ""
    for character in text:
        *first, last = character.encode()
        for byte in first:
            assert stream.push(bytes([byte])) == ""
        assert stream.push(bytes([last])) == character
        shown += character
    assert shown == text
    assert stream.push(b"", final=True) == ""


@given(text=st.text(), positions=st.lists(st.integers(0, 500)))
def test_text_is_unchanged_however_it_is_divided(text, positions):
    assert detokenize(split_at(text.encode(), positions)) == text


@given(data=st.binary(), positions=st.lists(st.integers(0, 500)))
@example(data="🙂".encode()[:3], positions=[1, 2])
@example(data=b"\xf0\x80\x80\xe2\x82", positions=[1, 3])
def test_invalid_bytes_are_replaced(data, positions):
    assert detokenize(split_at(data, positions)) == data.decode("utf-8", "replace")


# few letters, one of two bytes, so that stop strings occur, overlap and almost occur
letters = "abé"
stops = st.lists(st.text(letters, min_size=1, max_size=4), min_size=1, max_size=3)


@given(text=st.text(letters, max_size=30), stop=stops, positions=st.lists(st.integers(0, 60)))
@example(
    text="aab", stop=["aab"], positions=[1, 2]
)  # an end that is the start of the stop string twice
@example(text="éabé", stop=["abé", "b"], positions=[3])  # nested stop strings
def test_text_ends_before_the_first_stop_string_however_it_is_divided(text, stop, positions):
    # the first is the one that is complete first; of several, the longest
    found = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    expected = text[: min(found)[1]] if found else text
    stream = IncrementalDetokenizer(stop)
    shown = ""
    for piece in split_at(text.encode(), positions):
        shown += stream.push(piece)
        assert expected.startswith(shown), "returned text cannot change"
    assert shown + stream.push(b"", final=True) == expected
    assert stream.stopped == any(s in text for s in stop)


@given(text=st.text(letters, max_size=30), stop=stops)
def test_only_possible_starts_of_stop_strings_are_held_back(text, stop):
    stream = IncrementalDetokenizer(stop)
    fed = shown = ""
    for character in text:
        fed += character
        shown += stream.push(character.encode())
        if stream.stopped:
            return
        held = fed[len(shown) :]
        assert fed.startswith(shown)
        assert held == "" or any(s.startswith(held) and s != held for s in stop)


def test_nothing_follows_a_stop_string():
    stream = IncrementalDetokenizer(["\n"])
    assert stream.push(b"yes\nno") == "yes"
    assert stream.stopped
    assert stream.push(b"more") == stream.push(b"", final=True) == ""


@pytest.mark.parametrize("stop", [[""], ["a", ""]])
def test_an_empty_stop_string_is_refused(stop):
    with pytest.raises(ValueError, match=r"^A stop string is empty"):
        IncrementalDetokenizer(stop)
