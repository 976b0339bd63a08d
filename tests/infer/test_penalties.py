from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.infer.conftest import choose, make_generator, probabilities

from gnano.config.inference_config import SamplingParams
from gnano.infer.sampling import TokenHistory

V = 12
texts = st.lists(st.integers(0, V - 1), max_size=30)
# multiples of 1/4, with zeros and equal values
logit_lists = st.lists(st.integers(-12, 12).map(lambda n: n / 4), min_size=V, max_size=V)


def history_of(sampling, prompt, answer):
    history = TokenHistory(prompt, sampling)
    for token in answer:
        history.add(token)
    return history


def by_transformers(logits, ids, bias=(), repetition=1.0, ngram=0):
    from transformers import (
        LogitsProcessorList,
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        SequenceBiasLogitsProcessor,
    )

    theirs: Any = LogitsProcessorList()
    if bias:
        theirs.append(SequenceBiasLogitsProcessor([[[token], value] for token, value in bias]))
    theirs.append(RepetitionPenaltyLogitsProcessor(repetition))
    if ngram:
        theirs.append(NoRepeatNGramLogitsProcessor(ngram))
    return theirs(torch.tensor([ids], dtype=torch.int64), torch.tensor([logits]))[0]


@settings(deadline=None)
@given(
    logits=logit_lists,
    prompt=texts,
    answer=texts,
    repetition=st.sampled_from([0.5, 1.0, 1.2, 3.0]),
    ngram=st.integers(0, 4),
    bias=st.dictionaries(st.integers(0, V - 1), st.integers(-20, 20).map(lambda n: n / 4)),
)
def test_repetition_no_repeat_and_bias_match_transformers(
    logits, prompt, answer, repetition, ngram, bias
):
    pairs = tuple(bias.items())
    sampling = SamplingParams(
        temperature=1, repetition_penalty=repetition, no_repeat_ngram_size=ngram, logit_bias=pairs
    )
    history = history_of(sampling, prompt, answer)
    theirs = by_transformers(logits, prompt + answer, pairs, repetition, ngram)
    if theirs.isinf().all():  # no token remains
        theirs = by_transformers(logits, prompt + answer, pairs, repetition)
    ours = probabilities(torch.tensor(logits), sampling, history)
    torch.testing.assert_close(ours, theirs.softmax(-1))


@settings(deadline=None)
@given(
    logits=logit_lists,
    prompt=texts,
    answer=texts,
    presence=st.sampled_from([-2.0, 0.0, 0.5, 2.0]),
    frequency=st.sampled_from([-2.0, 0.0, 0.25, 2.0]),
)
def test_presence_and_frequency_count_only_the_answer(logits, prompt, answer, presence, frequency):
    """OpenAI's formula: mu[j] - c[j] * frequency - (c[j] > 0) * presence."""
    times = Counter(answer)
    expected = [logits[j] - times[j] * frequency - float(times[j] > 0) * presence for j in range(V)]
    sampling = SamplingParams(temperature=1, presence_penalty=presence, frequency_penalty=frequency)
    history = history_of(sampling, prompt, answer)
    ours = probabilities(torch.tensor(logits), sampling, history)
    torch.testing.assert_close(ours, torch.tensor(expected).softmax(-1))


def test_all_settings_apply_in_the_documented_order():
    prompt, answer = [1, 2, 3, 1], [4, 4, 2, 3, 5, 2]
    bias = ((2, 1.5), (4, -0.5), (6, 2.0))
    logits = torch.randn(V, generator=torch.Generator().manual_seed(0)).tolist()
    expected = by_transformers(logits, prompt + answer, bias, 1.3)
    for token, times in Counter(answer).items():
        expected[token] -= 0.7 + 0.2 * times
    expected[3] = -torch.inf  # 2 was followed by 3 and by 5
    expected[5] = -torch.inf
    expected = (expected / 0.6).softmax(-1)
    expected[expected < 0.05 * expected.max()] = 0
    sampling = SamplingParams(
        temperature=0.6,
        min_p=0.05,
        repetition_penalty=1.3,
        presence_penalty=0.7,
        frequency_penalty=0.2,
        no_repeat_ngram_size=2,
        logit_bias=bias,
    )
    ours = probabilities(torch.tensor(logits), sampling, history_of(sampling, prompt, answer))
    torch.testing.assert_close(ours, expected / expected.sum())


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("ngram", [2, 3])
def test_no_n_gram_occurs_twice(temperature, ngram):
    logits = torch.tensor([3.0, 2.0, 1.0, *[-5.0] * 300])
    text = [0, 1, 0, 2, 2]
    sampling = SamplingParams(temperature=temperature, no_repeat_ngram_size=ngram, seed=0)
    generator, history = make_generator(sampling.seed), TokenHistory(text, sampling)
    for _ in range(200):
        token = choose(logits, sampling, generator, history)
        history.add(token)
        text.append(token)
    runs = list(zip(*(text[start:] for start in range(ngram)), strict=False))
    assert len(runs) > 200
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_if_every_token_is_banned_one_is_sampled(temperature):
    sampling = SamplingParams(temperature=temperature, no_repeat_ngram_size=1, seed=0)
    history = TokenHistory([0, 1, 2], sampling)
    logits = torch.tensor([0.0, 50.0, 1.0])
    assert choose(logits, sampling, make_generator(sampling.seed), history) == 1


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_large_bias_forces_or_excludes_a_token(temperature):
    logits = torch.randn(V, generator=torch.Generator().manual_seed(0)).bfloat16()
    for token in range(V):
        forced = SamplingParams(temperature=temperature, logit_bias=((token, 100.0),), seed=0)
        assert choose(logits, forced, make_generator(forced.seed)) == token
        out = SamplingParams(temperature=temperature, logit_bias=((token, -100.0),), seed=0)
        generator = make_generator(out.seed)
        assert token not in {choose(logits, out, generator) for _ in range(50)}


def test_penalties_apply_to_greedy_texts():
    logits = torch.tensor([1.0, 0.8, 0.6, -5.0])
    sampling = SamplingParams(temperature=0, frequency_penalty=0.5)
    generator, history = make_generator(sampling.seed), TokenHistory([0, 0, 0], sampling)
    text = []
    for _ in range(6):
        text.append(choose(logits, sampling, generator, history))
        history.add(text[-1])
    assert text == [0, 1, 2, 0, 1, 2]


def test_penalties_do_not_change_the_given_logits():
    logits = torch.randn(V, generator=torch.Generator().manual_seed(0))
    copy = logits.clone()
    sampling = SamplingParams(
        temperature=0,
        repetition_penalty=2.0,
        presence_penalty=1.0,
        no_repeat_ngram_size=1,
        logit_bias=((0, 1.0),),
    )
    history = history_of(sampling, [1, 2], [3])
    choose(logits, sampling, make_generator(sampling.seed), history)
    assert torch.equal(logits, copy)
