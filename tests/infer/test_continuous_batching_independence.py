"""What a request receives does not depend on who else is served, bit for bit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gnano.config.inference_config import SamplingParams
from gnano.infer.continuous_batching import CPU_PREFILL_TOKENS, ContinuousBatch
from gnano.infer.engine import INFERENCE_DTYPES, Engine
from gnano.infer.request import Request, SequenceState
from gnano.model.attention import KEY_TILE

GREEDY = SamplingParams(temperature=0)
PRECISIONS = [
    *[("fp32", ""), ("fp32", "int8"), ("fp32", "int4"), ("fp16", "")],
    *[("bf16", ""), ("bf16", "int8"), ("bf16", "int4")],
]
CONTEXT = 3 * KEY_TILE


def random_ids(length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 256, (length,), generator=generator).tolist())


def run(batch: ContinuousBatch, requests: list[Request], stagger: int = 0) -> list[SequenceState]:
    """Return the finished sequences; the next is added after `stagger` steps."""
    sequences = []
    for request in requests:
        sequences.append(batch.add(request))
        for _ in range(stagger):
            batch.step()
    while batch.active or batch.waiting:
        batch.step()
    return sequences


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "quant"), PRECISIONS)
def test_the_same_seed_gives_the_same_text_whoever_else_is_served(
    make_engine, save_engine, dtype, quant
):
    engine = Engine.load(save_engine(make_engine(block_size=CONTEXT)), "cpu", dtype, quant)
    lengths = [1, 30, KEY_TILE, 2 * KEY_TILE + 60, 5, KEY_TILE - 7, 250, 2, 90, 17]
    requests = [
        Request(
            prompt_ids=random_ids(length, number),
            max_new_tokens=20 + 9 * number,
            sampling=SamplingParams(temperature=0.8 * (number % 3 > 0), seed=number),
            logprobs=2,
            context_shift=number == 3,
        )
        for number, length in enumerate(lengths)
    ]
    together = run(engine.new_batch(8), requests, stagger=3)
    for request, found in zip(requests, together, strict=True):
        [alone] = run(engine.new_batch(2), [request])
        assert found.output_ids == alone.output_ids
        assert found.logprobs == alone.logprobs and found.text == alone.text
        assert found.finish_reason == alone.finish_reason


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_row_without_finite_logits_ends_alone(make_engine, save_engine, dtype):
    engine = Engine.load(save_engine(make_engine(block_size=CONTEXT)), "cpu", dtype)
    bad_id = engine.tokenizer.vocab_size - 2
    unbiased = SamplingParams(seed=2, logit_bias=((bad_id, -100.0),))
    good = [
        Request(prompt_ids=random_ids(9, number), max_new_tokens=25, sampling=unbiased, logprobs=0)
        for number in range(5)
    ]
    expected = run(engine.new_batch(4), good)
    with torch.no_grad():
        engine.model.model.embed_tokens.weight[bad_id] = torch.nan
    for sampling in (GREEDY, SamplingParams(seed=1)):
        in_prompt = Request(prompt_ids=(1, bad_id, 2), sampling=sampling)
        forced = SamplingParams(temperature=sampling.temperature, logit_bias=((bad_id, 100.0),))
        in_answer = Request(prompt_ids=(1, 2), sampling=forced)
        batch = engine.new_batch(4)
        found = run(batch, [good[0], in_answer, in_prompt, *good[1:]], stagger=1)
        for sequence in found[1:3]:
            assert sequence.finish_reason == "error" and sequence.error.count(".") == 1
        assert found[1].output_ids == [bad_id] and found[2].output_ids == []
        for ours, theirs in zip([found[0], *found[3:]], expected, strict=True):
            assert ours.output_ids == theirs.output_ids and ours.logprobs == theirs.logprobs
        # the slots can be used again
        assert run(batch, good[:1])[0].output_ids == expected[0].output_ids
        with pytest.raises(ValueError, match=r"not finite numbers.*earlier checkpoint\.$"):
            engine.generate_batch([in_prompt.prompt_ids, (1, 2)], 4, sampling)
        with pytest.raises(ValueError, match=r"not finite numbers"):
            engine.generate(in_prompt.prompt_ids, 4, sampling)


def test_a_long_prompt_is_computed_between_the_steps_of_others(make_engine):
    engine = make_engine(block_size=2_048)
    batch = engine.new_batch(4)
    endless = SamplingParams(temperature=0, logit_bias=((engine.tokenizer.end_of_text_id, -100.0),))
    events: list[Any] = []
    hidden = engine.model.hidden_states

    def watched(ids, *rest):
        if ids.shape[1] > 1:
            events.append(ids.shape[1])
        return hidden(ids, *rest)

    engine.model.hidden_states = watched
    writer = batch.add(Request(prompt_ids=(1, 2), max_new_tokens=40, sampling=endless))
    batch.step()
    long, late = (
        batch.add(Request(prompt_ids=random_ids(length, length), sampling=endless))
        for length in (1_000, 500)
    )
    short = batch.add(Request(prompt_ids=(3, 4), sampling=endless))
    while not short.output_ids:
        events.clear()
        written = len(writer.output_ids)
        changed = batch.step(on_decoded=lambda sequences: events.append(list(sequences)))
        assert events[0][0] is writer and len(writer.output_ids) == written + 1
        assert 0 < sum(events[1:]) <= CPU_PREFILL_TOKENS
        if late.output_ids:
            assert long.output_ids, "first come, first served"
    assert len(writer.output_ids) <= 1 + 13  # 1,502 tokens of prompts, nearly 128 at a time
    assert late in changed and short in changed, "short prompts share a step"


def test_a_prompt_that_is_canceled_half_way_leaves_no_trace(make_engine):
    engine = make_engine(block_size=600)
    request = Request(prompt_ids=random_ids(300, 1), max_new_tokens=5, sampling=GREEDY)
    [expected] = run(engine.new_batch(2), [request])
    batch = engine.new_batch(2)
    writer = batch.add(Request(prompt_ids=(1, 2), max_new_tokens=30, sampling=GREEDY))
    batch.step()
    canceled = batch.add(Request(prompt_ids=random_ids(500, 2)))
    batch.step()
    assert writer.finish_reason is None and not canceled.output_ids
    batch.cancel(canceled)
    [found] = run(batch, [request])
    assert found.output_ids == expected.output_ids and not canceled.output_ids


@pytest.mark.parametrize(
    ("sampling", "is_compiled"),
    [(SamplingParams(), True), (SamplingParams(seed=1), False), (GREEDY, False)],
    ids=["unseeded", "seeded", "greedy"],
)
def test_only_a_text_that_cannot_be_asked_for_again_may_round_differently(
    engine, sampling, is_compiled
):
    """A row that is alone in a batch of several may use the compiled step."""
    batch = engine.new_batch(3)
    steps = []

    def step(ids):
        steps.append(len(ids))
        part = batch.cache.slice_rows(0, len(ids))
        return engine.model(torch.tensor(ids)[:, None], part)[:, 0]

    batch.decode_runner = SimpleNamespace(step=step)
    unending = SamplingParams(**{**vars(sampling), "logit_bias": ((0, -100.0),)})
    sequences = [
        batch.add(Request(prompt_ids=(1, 2), max_new_tokens=tokens, sampling=unending))
        for tokens in (4, 8)
    ]
    while batch.active or batch.waiting:
        batch.step()
    assert all(len(s.output_ids) in (4, 8) or s.finish_reason == "stop" for s in sequences)
    assert bool(steps) == is_compiled and set(steps) <= {1}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_prompts_of_any_length_are_decoded_as_transformers_would(make_engine, save_engine, dtype):
    """Blocks, tiles and company change no token of fp32; the first token of bf16 is near."""
    from transformers import LlamaForCausalLM

    engine = make_engine(block_size=CONTEXT)
    loading: Any = LlamaForCausalLM
    theirs = loading.from_pretrained(save_engine(engine), dtype=INFERENCE_DTYPES[dtype])
    ours = Engine.load(save_engine(engine), "cpu", dtype)
    requests = [
        Request(prompt_ids=random_ids(n, n), max_new_tokens=9, sampling=GREEDY, logprobs=0)
        for n in (1, 100, 128, 129, 300)
    ]
    for request, found in zip(requests, run(ours.new_batch(5), requests), strict=True):
        prompt = list(request.prompt_ids)
        with torch.no_grad():
            logits = theirs(torch.tensor([prompt + found.output_ids])).logits[0].float()
        expected = logits[len(prompt) - 1 : -1].log_softmax(-1)
        if dtype == "fp32":
            assert found.output_ids == expected.argmax(-1).tolist()
        near = 1e-3 if dtype == "fp32" else 0.5
        for output, row in zip(found.logprobs, expected, strict=True):
            assert output.logprob == pytest.approx(row[output.token_id].item(), abs=near)
