from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gnano.infer import Sampling, choose, probabilities

# quarters: equal logits are exactly equal, others differ by more than rounding
logit_lists = st.lists(st.integers(-40, 40).map(lambda n: n / 4), min_size=1, max_size=20)
temperatures = st.sampled_from([0.25, 0.5, 0.8, 1.0, 2.0])


def by_hand(logits, temperature, top_k, top_p):
    """Likeliest first: at most k of them, then as few as reach p of what these hold.

    None where rounding alone decides whether p is reached.
    """
    weights = [2.718281828459045 ** ((logit - max(logits)) / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: (-weights[token], token))
    if top_k:
        order = order[:top_k]
    whole = sum(weights[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if abs(reached - top_p) < 1e-5:
            return None
        if reached >= top_p:
            break
        kept.append(token)
        reached += weights[token] / whole
    left = sum(weights[token] for token in kept)
    return [weights[t] / left if t in kept else 0.0 for t in range(len(logits))]


@settings(deadline=None)
@given(
    logits=logit_lists,
    temperature=temperatures,
    top_k=st.integers(0, 25),
    top_p=st.floats(0.01, 0.999),
)
def test_top_k_and_top_p_keep_what_they_say(logits, temperature, top_k, top_p):
    expected = by_hand(logits, temperature, top_k, top_p)
    assume(expected is not None)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    ours = probabilities(torch.tensor(logits), sampling).tolist()
    assert ours == pytest.approx(expected, abs=1e-5)
    assert [p > 0 for p in ours] == [p > 0 for p in expected]


@pytest.mark.parametrize("temperature, top_k, top_p", [(0.7, 0, 0.9), (1.3, 20, 1.0), (1, 50, 0.6)])
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p):
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    theirs: Any = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
    if top_k:
        theirs.append(TopKLogitsWarper(top_k))
    theirs.append(TopPLogitsWarper(top_p))
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn(1, 300, generator=generator) * 3
        expected = theirs(torch.tensor([[0]]), logits.clone()).softmax(-1)[0]
        torch.testing.assert_close(probabilities(logits[0], sampling), expected)


@settings(deadline=None)
@given(logits=logit_lists, temperature=temperatures, seed=st.integers(0, 1000))
def test_a_narrow_choice_is_the_greedy_one(logits, temperature, seed):
    values = torch.tensor(logits)
    greedy = logits.index(max(logits))
    nobody = Sampling(temperature=0, seed=seed)
    assert choose(values, nobody, nobody.generator()) == greedy
    assert probabilities(values, nobody).tolist() == [
        float(t == greedy) for t in range(len(logits))
    ]
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        sampling = Sampling(temperature=temperature, seed=seed, **narrow)
        assert choose(values, sampling, sampling.generator()) == greedy


def test_choosing_leaves_the_logits_as_they_are():
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    copy = logits.clone()
    sampling = Sampling(temperature=0.5, top_k=5, top_p=0.7, seed=1)
    choose(logits, sampling, sampling.generator())
    assert torch.equal(logits, copy)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 1.0}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}],
    ids=str,
)
def test_tokens_come_as_often_as_their_probability_says(settings):
    draws = 6_000
    logits = torch.tensor([1.0, -2.0, 0.5, 0.0, -0.5, 2.0, -1.0])
    sampling = Sampling(seed=0, **settings)
    generator = sampling.generator()
    counts = [0] * len(logits)
    for _ in range(draws):
        counts[choose(logits, sampling, generator)] += 1
    expected = by_hand(logits.tolist(), sampling.temperature, sampling.top_k, sampling.top_p)
    assert all(count == 0 for count, p in zip(counts, expected, strict=True) if p == 0)
    chi_square = sum(
        (count - draws * p) ** 2 / (draws * p)
        for count, p in zip(counts, expected, strict=True)
        if p > 0
    )
    assert chi_square < 22.5  # 1 in 1,000 by chance at 6 degrees of freedom; the seed is fixed


def test_with_neither_top_k_nor_top_p_every_token_can_come():
    logits = torch.randn(50_257, generator=torch.Generator().manual_seed(0)) * 3
    expected = logits.softmax(-1)
    assert expected.min() > 0
    ours = probabilities(logits, Sampling(temperature=1.0))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-38])
def test_a_tiny_temperature_is_the_greedy_choice(temperature):
    sampling = Sampling(temperature=temperature, seed=0)
    logits = torch.tensor([3.0, 20.0, -20.0, 19.0])
    assert choose(logits, sampling, sampling.generator()) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_are_welcome(dtype):
    logits = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    for temperature in (0, 0.01):
        sampling = Sampling(temperature=temperature, seed=0)
        assert choose(logits, sampling, sampling.generator()) == 2


@pytest.mark.parametrize(
    "wrong, range_of_it",
    [
        ({"temperature": -0.1}, "0 … 100"),
        ({"temperature": 101}, "0 … 100"),
        ({"temperature": float("nan")}, "0 … 100"),
        ({"temperature": float("inf")}, "0 … 100"),
        ({"top_k": -1}, "0 (all) or more"),
        ({"top_p": 0.0}, "(0, 1]"),
        ({"top_p": 1.01}, "(0, 1]"),
        ({"top_p": float("nan")}, "(0, 1]"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_the_range(wrong, range_of_it):
    with pytest.raises(ValueError) as refusal:
        Sampling(**wrong)
    ((name, value),) = wrong.items()
    message = str(refusal.value)
    assert message.startswith(f"{name.replace('_', '-')} is {value};")
    assert range_of_it in message
    assert "\n" not in message


def test_the_ends_of_each_range_are_allowed():
    logits = torch.tensor([0.0, 1.0])
    for allowed in ({"temperature": 0}, {"temperature": 100}, {"top_k": 0}, {"top_k": 9}):
        sampling = Sampling(seed=0, **allowed)
        assert choose(logits, sampling, sampling.generator()) in (0, 1)


def test_a_seed_that_is_too_large_is_refused_with_the_range():
    with pytest.raises(ValueError, match="seed is 18446744073709551616"):
        Sampling(seed=2**64)
