"""What a model finds of an answer is what transformers' logits say, whatever is asked beside it."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evals.conftest import made_items, small_model
from transformers import AutoTokenizer, LlamaForCausalLM

from gnano.config.inference_config import LoadConfig
from gnano.evals.loglikelihood import (
    EncodedChoice,
    EncodedItem,
    GPTScorer,
    choice_nll,
    common_prefix_length,
    compute_loglikelihoods,
    make_batches,
)
from gnano.evals.model_adapter import RequestEncoder, load_eval_model

FP32 = LoadConfig(dtype="fp32")


def by_transformers(folder, item):
    """Nats and greedy of each option, each alone, over its own tokenizer's ids."""
    llama = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for context, answer in item.options:
        before = tokenizer("<|endoftext|>" + context).input_ids
        whole = tokenizer("<|endoftext|>" + context + answer).input_ids
        with torch.no_grad():
            logits = llama(torch.tensor([whole[:-1]])).logits[0, len(before) - 1 :].double()
        targets = torch.tensor(whole[len(before) :])
        nats = logits.log_softmax(-1).gather(1, targets[:, None]).sum().item()
        found.append((nats, bool((logits.argmax(-1) == targets).all())))
    return found


def test_it_is_what_transformers_finds_of_each_option_alone(saved_model):
    subject = load_eval_model(saved_model, FP32)
    items = made_items(12)
    found = compute_loglikelihoods(subject.scorer, subject.encoder.encode_items(items), 16)
    for item, options in zip(items, found, strict=True):
        expected = by_transformers(saved_model, item)
        assert [nats for nats, _ in options] == pytest.approx([n for n, _ in expected], abs=2e-3)
        assert [greedy for _, greedy in options] == [greedy for _, greedy in expected]


# a few ids, so that options often begin alike, and as often end there
IDS = st.lists(st.integers(0, 2), min_size=2, max_size=12)
OPTION = st.builds(
    lambda ids, scored: EncodedChoice(tuple(ids), min(scored, len(ids) - 1)), IDS, st.integers(1, 5)
)
QUESTION = st.builds(lambda o: EncodedItem(tuple(o)), st.lists(OPTION, min_size=1, max_size=4))


@given(
    st.lists(QUESTION, min_size=1, max_size=6),
    st.integers(1, 20),
    st.lists(IDS, max_size=1),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_no_shape_of_questions_and_no_batch_changes_what_is_found(questions, rows, heads, dtype):
    """Beyond the rounding of the precision, which in bf16 may decide which token is likeliest."""
    head = tuple(heads[0] * 4) if heads else ()  # long enough to be computed apart
    questions = [
        EncodedItem(tuple(EncodedChoice(head + o.ids, o.scored) for o in q.options))
        for q in questions
    ]
    model = small_model(5, block_size=64).eval().to(dtype)
    found = compute_loglikelihoods(GPTScorer(model), questions, rows)
    for question, options in zip(questions, found, strict=True):
        for option, (nats, greedy) in zip(question.choices, options, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([option.ids[:-1]]))[0, -option.num_scored :]
            targets = torch.tensor(option.ids[-option.num_scored :])
            alone = logits.log_softmax(-1).gather(1, targets[:, None]).sum().item()
            if dtype == torch.bfloat16:
                assert nats == pytest.approx(alone, abs=0.01 * option.num_scored)
                continue
            assert nats == pytest.approx(alone, abs=1e-4)
            assert greedy == bool((logits.argmax(-1) == targets).all())


def test_at_each_position_one_token_is_the_likeliest_however_many_are_equally_likely():
    """In bf16 two of a hundred positions have several; the harness and greedy decoding take one.

    Of a damaged model, whose logits are NaN, no text is all right either.
    """
    N, V = 30, 40
    logits_NV = torch.randint(6, (N, V), generator=torch.Generator().manual_seed(0)).bfloat16()
    assert ((logits_NV == logits_NV.amax(-1, keepdim=True)).sum(-1) > 1).all()
    logits_NV[7] = torch.nan
    options = [EncodedChoice((0, token), 1) for _ in range(N) for token in range(V)]
    places = [place for place in range(N) for _ in range(V)]
    found_O2 = choice_nll(lambda x: x.float(), V, options, logits_NV, places)
    right_NV = (found_O2[:, 1] == 0).view(N, V)
    assert torch.equal(right_NV.long().argmax(-1), logits_NV.argmax(-1))
    assert (right_NV.sum(-1) == 1).all()


@pytest.mark.parametrize("rows", [1, 3, 32])
def test_texts_as_long_as_the_context_fit_whatever_they_are_asked_beside(rows):
    draw = random.Random(0)
    model = small_model(50, block_size=40).eval()
    questions = []
    for _ in range(20):
        shared = [draw.randrange(50) for _ in range(draw.randrange(1, 40))]
        rest = [[draw.randrange(50)] * draw.randrange(1, 42 - len(shared)) for _ in range(4)]
        questions.append(EncodedItem(tuple(EncodedChoice((*shared, *r), len(r)) for r in rest)))
    found = compute_loglikelihoods(GPTScorer(model), questions, rows)
    alone = [compute_loglikelihoods(GPTScorer(model), [question])[0] for question in questions]
    for a, b in zip(found, alone, strict=True):
        assert [nats for nats, _ in a] == pytest.approx([nats for nats, _ in b], abs=1e-4)


def test_what_all_begin_with_is_computed_once():
    """Tokens that the model is fed, padding among them."""
    model = small_model(50, block_size=256).eval()
    fed = []
    model.model.embed_tokens.register_forward_hook(lambda _, x, y: fed.append(x[0].numel()))
    head, ends = tuple(range(40)) * 4, [(1, 2, 3, n) for n in range(8)]
    questions = [
        EncodedItem(tuple(EncodedChoice((*head, number, *end), 4) for end in ends))
        for number in range(6)
    ]
    compute_loglikelihoods(GPTScorer(model), questions, 24)
    # of an option 3 tokens after what its question shares; each question's own 4; the head, once
    assert sum(fed) == len(head) + 6 * (1 + 3)


def test_a_batch_is_never_larger_than_asked_and_each_question_is_in_one():
    questions = [EncodedItem((EncodedChoice((1,) * n, 1),) * (n % 4 + 1)) for n in range(2, 30)]
    parts = list(make_batches(questions, 7))
    assert sorted(number for part in parts for number in part) == list(range(len(questions)))
    assert all(sum(len(questions[n].choices) for n in part) <= 7 for part in parts)


def test_a_text_that_is_too_long_loses_its_beginning_and_a_blank_goes_to_the_answer():
    wording = RequestEncoder(lambda text: list(text.encode()), (0,), (0,), 8)
    option = wording.encode_choice("abcdefghij ", " xyz")
    assert bytes(option.ids) == b"ghij  xyz"[-9:] and option.num_scored == 5
    assert wording.encode_choice("", " xyz").ids == (0, *b" xyz")
    bare = RequestEncoder(lambda text: list(text.encode()), (), (9,), 8)
    assert bare.encode_choice("ab", " x").ids == (*b"ab x",)
    assert bare.encode_choice("", " x").ids == (9, *b" x")  # something must come before


@given(st.lists(st.lists(st.integers(0, 1), max_size=6), min_size=1, max_size=4))
def test_what_texts_begin_with_is_what_a_slow_comparison_finds(texts):
    texts = [tuple(text) for text in texts]
    size = next(
        n
        for n in range(7, -1, -1)
        if len({t[:n] for t in texts}) == 1 <= min(len(t) >= n for t in texts)
    )
    assert common_prefix_length(texts) == size
