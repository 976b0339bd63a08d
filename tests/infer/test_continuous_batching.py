"""Sequences of a batch are the same as if each were generated separately."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from gnano.config.inference_config import SamplingParams
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.engine import Engine
from gnano.infer.request import Request, SequenceState

GREEDY = SamplingParams(temperature=0)
PROMPTS = [
    *("", "Once", "Once upon a time there was a small engine", "it", " ", "東京 and 🙂", "a b c"),
    *("It read, it thought,", "1 + 1 = 2\n\n2 + 2 =", "<|endoftext|>", "word " * 12, "word"),
    *("Überall naïve Cafés", "the next word; then", "\n", "engine", "then it", "none of them"),
    *("byte by byte", "broke"),
]


def batch_of(engine: Engine, rows: int, length: int | None = None) -> ContinuousBatch:
    return ContinuousBatch(engine.model, engine.tokenizer, rows, length)


def generate_single(engine: Engine, request: Request) -> SequenceState:
    batch = batch_of(engine, 1)
    row = batch.add(request)
    while batch.active or batch.waiting:
        batch.step()
    return row


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, int, Request]:
    """Draw when a request is added, after how many steps it is canceled, and the request."""
    ids = tuple(draw(st.lists(st.integers(0, 290), min_size=1, max_size=20)))
    sampling = SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.7, 1.0])),
        top_k=draw(st.sampled_from([0, 5])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3])),
        seed=draw(st.integers(0, 1000)),
    )
    tokens, slide = draw(st.integers(1, 12)), draw(st.booleans())
    request = Request(
        prompt_ids=ids, max_new_tokens=tokens, sampling=sampling, logprobs=1, context_shift=slide
    )
    return draw(st.integers(0, 10)), draw(st.integers(1, 60)), request


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=st.lists(requests(), min_size=1, max_size=7), rows=st.integers(1, 4))
def test_a_sequence_does_not_depend_on_others_that_join_and_leave(engine, plan, rows):
    batch = batch_of(engine, rows)
    pending = sorted(enumerate(plan), key=lambda one: one[1][0])
    found: dict[int, SequenceState] = {}
    canceled: set[int] = set()
    step = 0
    while batch.active or batch.waiting or pending:
        while pending and pending[0][1][0] <= step:
            number, (_, _, request) = pending.pop(0)
            found[number] = batch.add(request)
        for number, (added, stay, _) in enumerate(plan):
            if number in found and step == added + stay and found[number].finish_reason is None:
                batch.cancel(found[number])
                canceled.add(number)
        batch.step()
        step += 1
    for number, row in found.items():
        expected = generate_single(engine, plan[number][2])
        output = (
            expected.output_ids[: len(row.output_ids)]
            if number in canceled
            else expected.output_ids
        )
        assert row.output_ids == output
        if number not in canceled:
            assert row.finish_reason == expected.finish_reason
        for ours, theirs in zip(row.logprobs, expected.logprobs, strict=False):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)


# and the tolerance for log-probabilities; observed on Zen 4: 2e-6, 0.003, 0.033
PRECISIONS = [
    ("fp32", "", 1e-3),
    ("fp32", "int8", 1e-3),
    ("fp32", "int4", 1e-3),
    ("fp16", "", 0.03),
    ("bf16", "", 0.3),
    ("bf16", "int8", 0.3),
    ("bf16", "int4", 0.3),
]


@pytest.mark.parametrize(("dtype", "quant", "near"), PRECISIONS)
def test_in_each_precision_a_batch_changes_texts_only_by_rounding(
    engine, save_engine, dtype, quant, near
):
    """Texts are equal until two tokens are almost equally likely; in fp32 completely."""
    loaded = Engine.load(save_engine(engine), "cpu", dtype, quant)
    sampling = SamplingParams(seed=5, temperature=0.8)
    prompts = PROMPTS[:6]
    together = [one for [one] in loaded.generate_batch(prompts, 12, sampling, logprobs=0)]
    again = [one for [one] in loaded.generate_batch(prompts, 12, sampling, logprobs=0)]
    assert together == again, "the same batch gives the same texts"
    compared = 0
    for prompt, text in zip(prompts, together, strict=True):
        [[own]] = loaded.generate_batch([prompt], 12, sampling, logprobs=0)
        assert "".join(loaded.stream_text(prompt, 12, sampling)) == own.text
        if dtype == "fp32":
            assert text.token_ids == own.token_ids
        for ours, theirs in zip(text.logprobs, own.logprobs, strict=False):
            if ours.token_id != theirs.token_id:
                break
            compared += 1
            assert ours.logprob == pytest.approx(theirs.logprob, abs=near)
    assert compared > 5 * len(prompts) // 2


def test_samples_of_a_prompt_compute_it_once_and_differ(engine, monkeypatch):
    seen = []
    hidden = engine.model.hidden_states

    def watched(ids, *rest):
        seen.append(ids.shape)
        return hidden(ids, *rest)

    monkeypatch.setattr(engine.model, "hidden_states", watched)
    [first, other] = engine.generate_batch(
        ["Once upon", "it"], 20, SamplingParams(seed=4), num_samples=5
    )
    prompts = [engine.encode_prompt(prompt) for prompt in ("Once upon", "it")]
    assert sum(rows * length for rows, length in seen if length > 1) == sum(map(len, prompts))
    assert len({sample.token_ids for sample in first}) == 5
    assert first[0] == engine.generate_batch(["Once upon"], 20, SamplingParams(seed=4))[0][0]
    again = engine.generate_batch(["it"], 20, SamplingParams(seed=4), num_samples=3)[0]
    assert [sample.token_ids for sample in again] == [sample.token_ids for sample in other[:3]]


def test_completions_are_the_texts_of_streams(engine):
    sampling, stop = SamplingParams(seed=2), ["e", "ab"]
    found = engine.generate_batch(PROMPTS, 30, sampling, stop)
    for prompt, [completion] in zip(PROMPTS, found, strict=True):
        assert completion.text == engine.generate(prompt, 30, sampling, stop)
        assert completion.prompt_tokens == len(engine.encode_prompt(prompt))
    assert {completion.finish_reason for [completion] in found} >= {"stop"}


def test_log_probabilities_are_those_of_transformers(engine, save_engine):
    theirs: Any = LlamaForCausalLM.from_pretrained(save_engine(engine))
    [[found]] = engine.generate_batch(
        ["Once"], 12, SamplingParams(seed=3, temperature=1.5), logprobs=3
    )
    start = engine.encode_prompt("Once")
    with torch.no_grad():
        logits = theirs(torch.tensor([[*start, *found.token_ids]])).logits[0, len(start) - 1 : -1]
    expected = logits.log_softmax(-1)
    assert len(found.logprobs) == len(found.token_ids)
    for row, token, output in zip(expected, found.token_ids, found.logprobs, strict=True):
        assert output.token_id == token and output.logprob == pytest.approx(
            row[token].item(), abs=1e-3
        )
        assert [token for token, _ in output.top_logprobs] == row.topk(3).indices.tolist()


def test_a_full_context_ends_the_text_or_drops_its_older_half(engine):
    prompt = engine.encode_prompt("Once upon a time there was a small engine that read")
    endless = SamplingParams(temperature=0, logit_bias=((engine.tokenizer.end_of_text_id, -100.0),))
    ended = generate_single(
        engine, Request(prompt_ids=prompt, max_new_tokens=300, sampling=endless)
    )
    assert ended.finish_reason == "context" and len(prompt) + len(ended.output_ids) == 97
    shifted = generate_single(
        engine, Request(prompt_ids=prompt, max_new_tokens=300, sampling=endless, context_shift=True)
    )
    assert shifted.finish_reason == "length" and len(shifted.output_ids) == 300
    assert shifted.output_ids[: len(ended.output_ids)] == ended.output_ids
    # after the first shift only the newer half is known
    text = [*prompt, *shifted.output_ids]
    known = text[: 96 + 1][-(96 // 2 + 1) :]
    expected = generate_single(
        engine, Request(prompt_ids=tuple(known), max_new_tokens=10, sampling=endless)
    )
    assert text[97:107] == expected.output_ids


def test_a_prompt_that_does_not_fit_is_refused(engine):
    batch = batch_of(engine, 2)
    row = batch.add(Request(prompt_ids=(1, 2, 3), max_new_tokens=5, sampling=GREEDY))
    with pytest.raises(ValueError, match=r"^The prompt has 97 tokens and does not fit"):
        batch.add(Request(prompt_ids=(1,) * 97))
    with pytest.raises(ValueError, match="no token"):
        batch.add(Request(prompt_ids=()))
    while batch.active or batch.waiting:
        batch.step()
    assert row.finish_reason == "length" and len(row.output_ids) == 5
