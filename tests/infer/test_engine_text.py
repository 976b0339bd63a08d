from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gnano.infer.engine import IncrementalDetokenizer

MIXED = [
    "plain words",
    "naïve café, Straße",
    "東京タワー 中文 한국어",
    "🙂🇨🇭👩‍👩‍👧‍👦",
    "e\u0301 n\u0303 decomposed",
    "a\u0000b\r\n\t",
]


def cut(data: bytes, places) -> list[bytes]:
    borders = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def through(pieces: list[bytes], stop=()) -> str:
    stream = IncrementalDetokenizer(stop)
    return "".join(map(stream.push, pieces)) + stream.push(b"", final=True)


@pytest.mark.parametrize("text", MIXED)
def test_a_character_appears_whole_and_with_its_last_byte(text):
    stream, shown = IncrementalDetokenizer(), ""
    for character in text:
        *first, last = character.encode()
        for byte in first:
            assert stream.push(bytes([byte])) == ""
        assert stream.push(bytes([last])) == character
        shown += character
    assert shown == text
    assert stream.push(b"", final=True) == ""


@given(text=st.text(), places=st.lists(st.integers(0, 500)))
def test_any_text_comes_through_unchanged_however_it_is_cut(text, places):
    assert through(cut(text.encode(), places)) == text


@given(data=st.binary(), places=st.lists(st.integers(0, 500)))
@example(data="🙂".encode()[:3], places=[1, 2])
@example(data=b"\xf0\x80\x80\xe2\x82", places=[1, 3])
def test_bytes_that_are_no_text_are_replaced_and_never_an_error(data, places):
    assert through(cut(data, places)) == data.decode("utf-8", "replace")


# few letters, so that stop strings occur, overlap and almost occur; a letter of two bytes
letters = "abé"
stops = st.lists(st.text(letters, min_size=1, max_size=4), min_size=1, max_size=3)


@given(text=st.text(letters, max_size=30), stop=stops, places=st.lists(st.integers(0, 60)))
@example(text="aab", stop=["aab"], places=[1, 2])  # an end that is twice a beginning
@example(text="éabé", stop=["abé", "b"], places=[3])  # one stop string inside another
def test_text_ends_before_the_first_stop_string_however_it_is_cut(text, stop, places):
    # the first is the one that is complete first; of several, the longest
    met = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    expected = text[: min(met)[1]] if met else text
    stream = IncrementalDetokenizer(stop)
    shown = ""
    for piece in cut(text.encode(), places):
        shown += stream.push(piece)
        assert expected.startswith(shown), "what was shown cannot be taken back"
    assert shown + stream.push(b"", final=True) == expected
    assert stream.stopped == any(s in text for s in stop)


@given(text=st.text(letters, max_size=30), stop=stops)
def test_no_more_is_held_back_than_could_become_a_stop_string(text, stop):
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
