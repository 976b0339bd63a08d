"""An answer in pieces is the answer."""

from hypothesis import given
from hypothesis import strategies as st

from gnano.chat.conversation import StreamingStrip


@given(st.lists(st.text(" \n\tab🙂")))
def test_pieces_join_to_the_text_without_white_space_around_it(pieces):
    trim = StreamingStrip()
    assert "".join(map(trim.feed, pieces)) == "".join(pieces).strip() == trim.text
