"""A fact that is stated in several places is read where they agree, and refused where not."""

import pytest

from gnano.utils.validation import ConflictingValuesError, require_agreement


def test_places_that_state_nothing_have_no_say():
    assert require_agreement("The size", {"here": None, "there": 7, "elsewhere": 7.0}) == 7
    assert require_agreement("The size", {"here": 0, "there": None}) == 0
    assert require_agreement("The size", {"here": None}) is None


def test_a_difference_names_both_places_and_values():
    with pytest.raises(ConflictingValuesError) as refused:
        require_agreement("The size", {"here": None, "there": 7, "elsewhere": 8})
    assert str(refused.value) == (
        "The size is stated twice, and differently: there is 7, and elsewhere is 8; correct the "
        "one that is wrong."
    )
