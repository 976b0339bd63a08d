import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.infer.conftest import choose, make_generator, probabilities

from gnano.config.inference_config import SamplingParams
from gnano.infer.sampling import TokenHistory, sample_tokens

# multiples of 1/4: equal logits are exactly equal, others differ by more than rounding
logit_lists = st.lists(st.integers(-40, 40).map(lambda n: n / 4), min_size=1, max_size=20)
temperatures = st.sampled_from([0.25, 0.5, 0.8, 1.0, 2.0])


def by_hand(logits, temperature, top_k=0, top_p=1.0, min_p=0.0):
    """Return the probabilities after top-k, top-p and min-p, computed token by token.

    None where only rounding decides whether p or the distance is reached.
    """
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if top_k:
        order = order[:top_k]
    total = sum(weights[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        close = top_p < 1 and abs(reached - top_p) < 1e-5
        if close or (min_p and abs(weights[token] - min_p) < 1e-6):
            return None
        if (top_p < 1 and reached >= top_p) or weights[token] < min_p:
            break
        kept.append(token)
        reached += weights[token] / total
    left = sum(weights[token] for token in kept)
    chances = [0.0] * len(logits)
    for token in kept:
        chances[token] = weights[token] / left
    return chances


@settings(deadline=None)
@given(
    logits=logit_lists,
    temperature=temperatures,
    top_k=st.integers(0, 25),
    top_p=st.floats(0.01, 0.999) | st.just(1.0),
    min_p=st.floats(0.001, 0.99) | st.just(0.0),
)
def test_top_k_top_p_and_min_p_keep_the_right_tokens(logits, temperature, top_k, top_p, min_p):
    expected = by_hand(logits, temperature, top_k, top_p, min_p)
    assume(expected is not None)
    sampling = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ours = probabilities(torch.tensor(logits), sampling).tolist()
    assert ours == pytest.approx(expected, abs=1e-5)
    assert [p > 0 for p in ours] == [p > 0 for p in expected]


@settings(deadline=None, max_examples=50)
@given(
    size=st.sampled_from([255, 256, 257, 3_000]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 4.0]),
    seed=st.integers(0, 1_000),
    top_k=st.sampled_from([0, 0, 40, 700]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.03]),
)
def test_limits_keep_the_right_tokens_of_a_large_vocabulary(
    size, spread, seed, top_k, top_p, min_p
):
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread
    logits = logits.bfloat16()  # with many equal values
    expected = by_hand(logits.tolist(), 0.9, top_k, top_p, min_p)
    assume(expected is not None)
    sampling = SamplingParams(temperature=0.9, top_k=top_k, top_p=top_p, min_p=min_p)
    ours = probabilities(logits, sampling)
    expected = torch.tensor(expected)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-9)
    # top-p compares a sum of thousands, which rounding may shift by one token
    assert int(((ours > 0) != (expected > 0)).sum()) <= (0 if top_p == 1 else 1)


@pytest.mark.parametrize(
    "temperature, top_k, top_p, min_p",
    [
        (0.7, 0, 0.9, 0.0),
        (1.3, 20, 1.0, 0.0),
        (1, 50, 0.6, 0.0),
        (1, 0, 1.0, 0.05),
        (1.5, 100, 0.95, 0.1),
        (1.5, 0, 0.5, 0.02),
    ],
)
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p, min_p):
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    theirs: Any = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
    if top_k:
        theirs.append(TopKLogitsWarper(top_k))
    theirs.append(TopPLogitsWarper(top_p))
    theirs.append(MinPLogitsWarper(min_p))
    sampling = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn(1, 300, generator=generator) * 3
        expected = theirs(torch.tensor([[0]]), logits.clone()).softmax(-1)[0]
        torch.testing.assert_close(probabilities(logits[0], sampling), expected)


@settings(deadline=None)
@given(logits=logit_lists, temperature=temperatures, seed=st.integers(0, 1000))
def test_limits_to_one_token_are_greedy(logits, temperature, seed):
    values = torch.tensor(logits)
    greedy = logits.index(max(logits))
    params = SamplingParams(temperature=0, seed=seed)
    assert choose(values, params, make_generator(params.seed)) == greedy
    assert probabilities(values, params).tolist() == [
        float(t == greedy) for t in range(len(logits))
    ]
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0, "top_k": 1}):
        sampling = SamplingParams(temperature=temperature, seed=seed, **narrow)
        assert choose(values, sampling, make_generator(sampling.seed)) == greedy


def test_sampling_does_not_change_the_logits():
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    copy = logits.clone()
    sampling = SamplingParams(temperature=0.5, top_k=5, top_p=0.7, seed=1)
    choose(logits, sampling, make_generator(sampling.seed))
    assert torch.equal(logits, copy)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"temperature": 2.0, "top_k": 6, "top_p": 0.97, "min_p": 0.1},
    ],
    ids=str,
)
def test_tokens_are_sampled_with_their_probability(settings):
    draws = 3_000
    logits = torch.tensor([1.0, -2.0, 0.5, 0.0, -0.5, 2.0, -1.0])
    sampling = SamplingParams(seed=0, **settings)
    generator = make_generator(sampling.seed)
    counts = [0] * len(logits)
    for _ in range(draws):
        counts[choose(logits, sampling, generator)] += 1
    expected = by_hand(
        logits.tolist(), sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
    )
    assert all(count == 0 for count, p in zip(counts, expected, strict=True) if p == 0)
    chi_square = sum(
        (count - draws * p) ** 2 / (draws * p)
        for count, p in zip(counts, expected, strict=True)
        if p > 0
    )
    assert chi_square < 22.5  # 1 in 1,000 by chance at 6 degrees of freedom; the seed is fixed


def test_without_limits_every_token_can_be_sampled():
    logits = torch.randn(50_257, generator=torch.Generator().manual_seed(0)) * 3
    expected = logits.softmax(-1)
    assert expected.min() > 0
    ours = probabilities(logits, SamplingParams(temperature=1.0))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-320])
def test_a_tiny_temperature_is_greedy(temperature):
    sampling = SamplingParams(temperature=temperature, seed=0)
    logits = torch.tensor([3.0, 20.0, -20.0, 19.0])
    assert choose(logits, sampling, make_generator(sampling.seed)) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_are_accepted(dtype):
    logits = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    for temperature in (0, 0.01):
        sampling = SamplingParams(temperature=temperature, seed=0)
        assert choose(logits, sampling, make_generator(sampling.seed)) == 2


@pytest.mark.parametrize(
    "wrong, range_of_it",
    [
        ({"temperature": -0.1}, "at least 0 and at most 100"),
        ({"temperature": 101}, "at least 0 and at most 100"),
        ({"temperature": float("nan")}, "finite"),
        ({"top_k": -1}, "at least 0"),
        ({"top_k": float("inf")}, "finite"),
        ({"top_k": 2.0}, "a whole number"),
        ({"top_p": 0.0}, "more than 0 and at most 1"),
        ({"top_p": 1.01}, "more than 0 and at most 1"),
        ({"min_p": -0.01}, "at least 0 and at most 1"),
        ({"repetition_penalty": 1e-45}, "at least 0.01 and at most 100"),
        ({"presence_penalty": -2.1}, "at least -2 and at most 2"),
        ({"frequency_penalty": 2.1}, "at least -2 and at most 2"),
        ({"no_repeat_ngram_size": -1}, "at least 0"),
        ({"no_repeat_ngram_size": 10**20}, "at most 2,147,483,647"),
        ({"seed": -1}, "at least 0"),
        ({"seed": 2**63}, "at most 9,223,372,036,854,775,807"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_the_range(wrong, range_of_it):
    with pytest.raises(ValueError) as refusal:
        SamplingParams(**wrong)
    ((name, value),) = wrong.items()
    message = str(refusal.value)
    assert message.startswith(f"{name} is {value}; it must be ")
    assert range_of_it in message
    assert "\n" not in message


def test_the_ends_of_each_range_are_allowed():
    logits = torch.tensor([0.0, 1.0])
    for allowed in (
        {"temperature": 0},
        {"temperature": 100},
        {"top_k": 0},
        {"top_k": 9},
        {"min_p": 0},
        {"min_p": 1},
        {"repetition_penalty": 100},
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"no_repeat_ngram_size": 99},
        {"logit_bias": ((0, -100), (1, 100))},
    ):
        sampling = SamplingParams(seed=0, **allowed)
        assert choose(
            logits, sampling, make_generator(sampling.seed), TokenHistory([0], sampling)
        ) in (0, 1)


def test_a_seed_that_is_too_large_is_refused_with_the_range():
    with pytest.raises(ValueError, match="seed is 18446744073709551616"):
        SamplingParams(seed=2**64)


@pytest.mark.parametrize(
    "bias, sentence",
    [
        (((5, float("nan")),), "the logit_bias of token 5 is nan; it must be finite."),
        (
            ((5, 100.5),),
            "the logit_bias of token 5 is 100.5; it must be at least -100 and at most 100.",
        ),
        (
            ((-1, 1.0),),
            "a token of logit_bias is -1; it must be at least 0 and at most 2,147,483,647.",
        ),
        (((5, 1.0), (5, 2.0)), "logit_bias names a token twice; give each token id one bias."),
    ],
)
def test_an_invalid_bias_is_refused(bias, sentence):
    with pytest.raises(ValueError) as refusal:
        SamplingParams(logit_bias=bias)
    assert str(refusal.value).startswith(sentence)


MIXED = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=1.5, seed=1),
    SamplingParams(temperature=1.5, seed=1, top_k=3),
    SamplingParams(temperature=1.2, seed=2, top_p=0.9),
    SamplingParams(temperature=0, repetition_penalty=1.5),
    SamplingParams(temperature=1.0, seed=3, min_p=0.05, presence_penalty=1.0),
    SamplingParams(temperature=0.7, seed=4, no_repeat_ngram_size=2, logit_bias=((7, 4.0),)),
    SamplingParams(temperature=1.5, seed=1),
]


def test_other_rows_of_a_batch_do_not_change_a_token():
    together = [(make_generator(s.seed), TokenHistory([1, 2, 3], s)) for s in MIXED]
    separate = [(make_generator(s.seed), TokenHistory([1, 2, 3], s)) for s in MIXED]
    source = torch.Generator().manual_seed(0)
    sampled = set()
    for _ in range(40):
        logits = torch.randn(len(MIXED), 600, generator=source) * 2
        copy = logits.clone()
        generators, histories = zip(*together, strict=True)
        tokens = sample_tokens(logits, MIXED, generators, histories)
        expected = [
            choose(row, sampling, *state)
            for row, sampling, state in zip(logits, MIXED, separate, strict=True)
        ]
        assert tokens == expected
        assert torch.equal(logits, copy)
        sampled.update(tokens)
        for token, *states in zip(tokens, together, separate, strict=True):
            assert token is not None
            for _, history in states:
                history.add(token)
    assert len(sampled) > 50, "the tokens must differ"


def texts_of(sampling, length=30):
    source, generator = torch.Generator().manual_seed(0), make_generator(sampling.seed)
    return [choose(torch.randn(50, generator=source), sampling, generator) for _ in range(length)]


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_sample_0_is_the_request_itself_and_samples_differ(seed):
    request = SamplingParams(seed=seed)
    assert texts_of(request.for_sample(0)) == texts_of(request)
    texts = [tuple(texts_of(request.for_sample(number))) for number in range(20)]
    assert len(set(texts)) == 20
    assert texts == [tuple(texts_of(request.for_sample(number))) for number in range(20)]


def test_neighboring_seeds_share_no_sample_seed():
    seeds = {
        SamplingParams(seed=s).for_sample(number).seed for s in range(50) for number in range(50)
    }
    assert len(seeds) == 50 * 50


def test_samples_without_a_seed_are_new_each_time():
    request = SamplingParams()
    assert (
        texts_of(request.for_sample(0))
        != texts_of(request.for_sample(1))
        != texts_of(request.for_sample(1))
    )


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}], ids=str
)
@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_a_row_whose_logits_are_not_finite_has_no_token_and_changes_no_other(settings, damage):
    sampling = SamplingParams(**{"seed": 0, **settings})
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    expected = [choose(row, sampling, make_generator(7)) for row in logits]
    logits[1, 5] = damage
    found = sample_tokens(logits, [sampling] * 3, [make_generator(7) for _ in range(3)], [None] * 3)
    assert found == [expected[0], None, expected[2]]
