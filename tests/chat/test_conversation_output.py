"""Removal of white space from streamed text."""

from hypothesis import given
from hypothesis import strategies as st

from gnano.chat.conversation import StreamingStrip


@given(st.lists(st.text(" \n\tab🙂")))
def test_pieces_join_to_the_text_without_white_space_around_it(pieces):
    strip = StreamingStrip()
    assert "".join(map(strip.push, pieces)) == "".join(pieces).strip() == strip.text
