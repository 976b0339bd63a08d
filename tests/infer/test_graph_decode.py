"""The decoding steps of a GPU, computed by the kernels' twins on the CPU, give the same texts."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.infer.conftest import generate_ids

from gnano.config.inference_config import SamplingParams
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.graph_decode import STEPS_AHEAD, GraphDecoder
from gnano.infer.request import Request, SequenceState
from gnano.infer.weight_formats import fuse_projections, quantize_model
from gnano.model.transformer import GPT

GREEDY = SamplingParams(temperature=0)
PROMPTS = ["", "Once upon a time", "it", "東京 and 🙂", "word " * 12, "Once upon a time there was"]
SAMPLINGS = [
    GREEDY,
    SamplingParams(seed=1),
    SamplingParams(seed=2, top_p=0.9),
    SamplingParams(seed=3, top_k=5, min_p=0.01),
    SamplingParams(seed=4, repetition_penalty=1.3),  # needs the host
    SamplingParams(temperature=0, logit_bias=((7, 2.0),)),
]


@pytest.fixture
def engines(make_engine, monkeypatch):
    """Return an engine, and one with the same weights that decodes as on a GPU, not compiled."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    plain, graphed = make_engine(), make_engine()
    fuse_projections(graphed.model)
    graphed.compiled_decoder = GraphDecoder(graphed.model)
    return plain, graphed


def new_batch(engine, rows):
    # the engine's own would repack the matrices for a CPU
    decoder = engine.compiled_decoder
    return ContinuousBatch(engine.model, engine.tokenizer, rows, compiled_decoder=decoder)


def run(batch, requests):
    sequences = [batch.add(request) for request in requests]
    while batch.active or batch.waiting:
        batch.step()
    return sequences


def request_of(engine, prompt, tokens, sampling, **options):
    ids = engine.encode_prompt(prompt)
    return Request(prompt_ids=ids, max_new_tokens=tokens, sampling=sampling, **options)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_texts_are_those_without_graphs(engines, sampling):
    plain, graphed = engines
    for prompt in PROMPTS[:4]:
        for tokens in (1, 3, 200):  # 200: until the context is full
            assert list(graphed.stream_text(prompt, tokens, sampling)) == list(
                plain.stream_text(prompt, tokens, sampling)
            )
    ids = generate_ids(plain, "Once", 200, sampling, context_shift=True)
    assert generate_ids(graphed, "Once", 200, sampling, context_shift=True) == ids
    pieces = list(plain.stream_text("Once", 40, sampling, stop=["e", "ed"]))
    assert list(graphed.stream_text("Once", 40, sampling, stop=["e", "ed"])) == pieces


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    plan=st.lists(
        st.tuples(
            st.integers(0, 12),  # the step before which it is added
            st.integers(1, 30),  # steps after which it is canceled
            st.sampled_from(PROMPTS),
            st.integers(1, 25),
            st.sampled_from(SAMPLINGS),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    ),
    rows=st.integers(1, 5),
)
def test_rows_that_join_move_and_leave_keep_their_texts(engines, plan, rows):
    """Although the host learns a few steps late that a row has ended."""
    plain, graphed = engines
    batch, step = new_batch(graphed, rows), 0
    found: dict[int, SequenceState] = {}
    while batch.active or batch.waiting or len(found) < len(plan):
        for number, (start, stay, prompt, tokens, sampling, logprobs) in enumerate(plan):
            if step == start:
                options = {"logprobs": 1} if logprobs else {}
                found[number] = batch.add(request_of(plain, prompt, tokens, sampling, **options))
            if step == start + stay and found[number].finish_reason is None:
                batch.cancel(found[number])
        batch.step()
        step += 1
    for number, (_, _, prompt, tokens, sampling, _) in enumerate(plan):
        [[expected]] = plain.generate_batch([prompt], tokens, sampling)
        ids, reason = tuple(found[number].output_ids), found[number].finish_reason
        if reason is None:  # canceled
            assert ids == expected.token_ids[: len(ids)]
        else:
            assert (ids, reason) == (expected.token_ids, expected.finish_reason)
            assert found[number].text == expected.text


def test_steps_are_launched_before_the_ids_of_earlier_ones_are_read(engines):
    _, graphed = engines
    batch = new_batch(graphed, 1)
    row = batch.add(request_of(graphed, "Once", 12, GREEDY))
    batch.step()
    launched = []
    while batch.active:
        batch.step()
        launched.append(int(batch.cache.lengths[0]) - len(row.request.prompt_ids))
    ahead = [steps - number for number, steps in enumerate(launched[:-1], start=1)]
    assert set(ahead[:5]) == {STEPS_AHEAD} and max(launched) <= 11, "none is beyond the last token"


def test_the_next_text_reuses_cache_and_graphs_also_after_an_error(engines):
    plain, graphed = engines
    [text] = run(new_batch(graphed, 2), [request_of(plain, "Once", 20, GREEDY)])
    runner = graphed.compiled_decoder.runner
    bad_id = plain.tokenizer.vocab_size - 2
    embedding = graphed.model.model.embed_tokens.weight
    kept = embedding[bad_id].clone()
    with torch.no_grad():
        embedding[bad_id] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        graphed.generate((1, bad_id, 2), 9, GREEDY)
    forced = replace(GREEDY, logit_bias=((bad_id, 100.0),))
    with pytest.raises(ValueError, match="not finite"):
        graphed.generate((1, 2), 9, forced)
    with torch.no_grad():
        embedding[bad_id] = kept
    stream = graphed.stream("Once upon", 50, GREEDY)
    next(stream)
    other = new_batch(graphed, 1)
    assert other.graph_runner is not runner, "its rows are in use"
    stream.close()
    del stream, other
    gc.collect()
    graphed.generate("it", 90, GREEDY)
    runner = graphed.compiled_decoder.runner
    [again] = run(new_batch(graphed, 1), [request_of(plain, "Once", 20, GREEDY)])
    assert again.output_ids == text.output_ids and graphed.compiled_decoder.runner is runner


def test_a_row_that_fails_on_the_device_ends_alone(engines):
    """The host learns of it after steps that continued with some id."""
    plain, graphed = engines
    good = request_of(plain, "Once upon a time", 30, SamplingParams(seed=5))
    [expected] = run(plain.new_batch(2), [good])
    bad = request_of(plain, "it", 30, SamplingParams(seed=6))
    batch = new_batch(graphed, 2)
    rows = [batch.add(bad), batch.add(good)]
    for _ in range(4):
        batch.step()
    batch.cache.layers[0].v_BKTE[0, :, 0] = torch.nan
    while batch.active:
        batch.step()
    assert rows[0].finish_reason == "error" and len(rows[0].output_ids) < 9
    assert rows[1].output_ids == expected.output_ids
    assert run(batch, [bad])[0].finish_reason != "error"


@pytest.mark.compile
@pytest.mark.usefixtures("graphs_only")
def test_rows_of_a_compiled_step_do_not_affect_each_other(make_engine):
    plain, graphed = make_engine(), make_engine()
    graphed.compiled_decoder = GraphDecoder(fuse_projections(graphed.model))
    requests = [
        request_of(plain, prompt, 5 + 4 * number, sampling)
        for number, (prompt, sampling) in enumerate(zip(PROMPTS, SAMPLINGS, strict=True))
    ]
    for request, found in zip(requests, run(new_batch(graphed, 3), requests), strict=True):
        [expected] = run(new_batch(plain, 1), [request])
        assert found.output_ids == expected.output_ids


@pytest.mark.compile
@pytest.mark.usefixtures("graphs_only")
@pytest.mark.parametrize("quant", ["", "int8"])
def test_one_compilation_fits_all_numbers_of_rows_and_lengths(make_engine, quant):
    """Of more than one. A server would stand still for each, and PyTorch gives up after eight."""
    model = fuse_projections(make_engine(block_size=1_024).model)
    if quant:
        quantize_model(model, "int8")
    decoder = GraphDecoder(model)
    decoder.warm_up()
    for rows, length in [(1, 90), (2, 90), (4, 400), (8, 90), (5, 1_000)]:
        runner = decoder.reserve_runner(model, rows, length, model.config.vocab_size)
        stance = "default" if rows == 2 else "fail_on_recompile"
        with torch.inference_mode(), torch.compiler.set_stance(stance):
            runner.step([3] * rows)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "mlp_bias", "int8"])
def test_other_models_decode_as_their_prefill_computes(make_engine, monkeypatch, kind):
    """Biases, norms of queries and keys, quantized matrices; one row, and several."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    config = make_engine().model.config
    changes: dict[str, Any] = {"mlp_bias": True} if kind == "mlp_bias" else {"architecture": kind}
    model = GPT.from_config(config if kind == "int8" else replace(config, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
    fuse_projections(model)
    if kind == "int8":
        quantize_model(model, "int8")
    decoder = GraphDecoder(model)
    for rows in (1, 3):
        ids = torch.randint(config.vocab_size, (rows, 20))
        runner = decoder.reserve_runner(model, rows, 90, config.vocab_size)
        for place in range(20):
            with torch.inference_mode():
                found = runner.step(ids[:, place].tolist())
        expected = model(ids)[:, -1]
        assert (found - expected).norm() < 1e-5 * expected.norm()
