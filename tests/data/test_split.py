import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats
from hypothesis.strategies import text as any_text

from gnano.data import Document
from gnano.data.split import is_heldout

text = any_text(max_size=20)
shares = floats(0, 1, exclude_max=True)


@settings(deadline=None, max_examples=40)
@given(one=text, two=text, group=any_text(min_size=1, max_size=20), share=shares)
def test_a_group_stays_together(one, two, group, share):
    assert is_heldout(Document(one, group), share) == is_heldout(Document(two, group), share)


@settings(deadline=None, max_examples=40)
@given(text=text, share=shares, more=shares)
def test_a_larger_share_only_adds_documents(text, share, more):
    if is_heldout(Document(text), min(share, more)):
        assert is_heldout(Document(text), max(share, more))


@settings(deadline=None, max_examples=40)
@given(text=text)
def test_a_share_of_0_holds_nothing_out(text):
    assert not is_heldout(Document(text), 0)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.5, 0.9])
def test_the_share_is_kept_over_many_documents(share):
    count = 20_000
    held = sum(is_heldout(Document(f"document {n}"), share) for n in range(count))
    assert abs(held - count * share) < 5 * (count * share * (1 - share)) ** 0.5


def test_a_document_is_on_the_same_side_in_every_version():
    # the held-out documents of a run of weeks must not become training text after an update
    held = [n for n in range(40) if is_heldout(Document(f"document {n}"), 0.2)]
    assert held == [2, 10, 13, 14, 17, 36, 37]
