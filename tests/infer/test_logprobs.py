import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnano.infer.sampling import compute_logprob


@settings(deadline=None)
@given(
    logits=st.lists(st.integers(-80, 80).map(lambda n: n / 4), min_size=1, max_size=20),
    token=st.integers(0, 19),
    top=st.integers(0, 25),
)
def test_a_log_probability_is_that_of_the_model(logits, token, top):
    token %= len(logits)
    log_total = math.log(sum(math.exp(logit) for logit in logits))
    order = sorted(range(len(logits)), key=lambda t: (-logits[t], t))[:top]
    found = compute_logprob(torch.tensor(logits), token, top)
    assert found.token_id == token
    assert found.logprob == pytest.approx(logits[token] - log_total, abs=1e-4)
    assert [t for t, _ in found.top_logprobs] == order
    assert [value for _, value in found.top_logprobs] == pytest.approx(
        [logits[t] - log_total for t in order], abs=1e-4
    )
    assert (
        found.top_logprobs == ()
        or dict(found.top_logprobs).get(token, found.logprob) == found.logprob
    )


def test_logits_of_any_magnitude_and_dtype_are_accepted():
    logits = torch.tensor([1_000.0, -1_000.0, 1_000.0], dtype=torch.bfloat16)
    found = compute_logprob(logits, 1, num_top=2)
    assert found.logprob == pytest.approx(-2_000 - math.log(2), rel=1e-3)
    assert [token for token, _ in found.top_logprobs] == [0, 2]
    assert [value for _, value in found.top_logprobs] == pytest.approx([-math.log(2)] * 2)


def test_a_negative_number_of_alternatives_is_refused():
    with pytest.raises(ValueError, match=r"top is -1; it must be at least 0\.$"):
        compute_logprob(torch.zeros(3), 0, num_top=-1)
