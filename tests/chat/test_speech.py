"""An answer in pieces is the answer."""

from hypothesis import given
from hypothesis import strategies as st

from gnano.chat.session import Trim


@given(st.lists(st.text(" \n\tab🙂")))
def test_pieces_join_to_the_text_without_white_space_around_it(pieces):
    trim = Trim()
    assert "".join(map(trim.push, pieces)) == "".join(pieces).strip() == trim.said
