"""Invalid requests are refused by every function, and padding ids are never sampled."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from gnano.chat.conversation import ChatSettings
from gnano.config.inference_config import EvalConfig, SamplingParams
from gnano.config.recipe import Recipe
from gnano.evals.smoke_test import run_smoke_test
from gnano.export.tensor_file import TensorFileHints
from gnano.infer.engine import Engine
from gnano.infer.request import Request
from gnano.infer.throughput import measure_throughput
from gnano.model.transformer import GPT
from gnano.reporting.cost_plan import plan_cost

# invalid as a number of tokens, a share, a penalty, …
INVALID_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, 10**400, -200, "7", True)
SHARES = (
    *("temperature", "top_p", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


def field_entries(kind: Callable[..., Any], *names: str) -> dict[str, Callable[[Engine, Any], Any]]:
    def build(_: Engine, value: Any, name: str) -> Any:
        return kind(**{name: value})

    label = kind.func.__name__ if isinstance(kind, partial) else kind.__name__
    return {f"{label} {name}": partial(build, name=name) for name in names}


COUNTS: dict[str, Callable[[Engine, Any], Any]] = {
    **field_entries(SamplingParams, "top_k", "no_repeat_ngram_size", "seed"),
    **field_entries(partial(Request, prompt_ids=(1,)), "max_new_tokens", "logprobs"),
    **field_entries(ChatSettings, "tokens"),
    **field_entries(EvalConfig, "limit", "shots", "heldout_tokens", "batch_size"),
    **field_entries(TensorFileHints, "n_head", "block_size"),
    **field_entries(partial(run_smoke_test, Path("nowhere")), "max_tokens"),
    **field_entries(partial(plan_cost, Recipe()), "gpus"),
    "logit_bias token": lambda _, value: SamplingParams(logit_bias=((value, 1.0),)),
    "bench prompt": lambda engine, value: measure_throughput(engine, prompt_tokens=value),
    "bench tokens": lambda engine, value: measure_throughput(engine, new_tokens=value),
    "bench texts": lambda engine, value: measure_throughput(engine, batch_sizes=[value]),
    "samples": lambda engine, value: engine.generate_batch(["x"], 1, num_samples=value),
    "alternatives": lambda engine, value: engine.generate_batch(["x"], 1, logprobs=value),
    "tokens": lambda engine, value: engine.generate("x", value),
    "prompt": lambda engine, value: engine.generate([1, value], 1),
    "prompt of several": lambda engine, value: engine.generate_batch([[1], [1, value]], 1),
    "biased token": lambda engine, value: engine.generate(
        "x", 1, SamplingParams(logit_bias=((value, 1.0),))
    ),
}
ENTRIES = {
    **COUNTS,
    **field_entries(SamplingParams, *SHARES),
    **field_entries(TensorFileHints, "rope_theta", "norm_eps"),
    **field_entries(partial(plan_cost, Recipe()), "gpu_hour_price", "mfu"),
    "logit_bias": lambda _, value: SamplingParams(logit_bias=((1, value),)),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_number_out_of_its_range_is_one_sentence_in_every_function(engine, entry):
    for value in INVALID_NUMBERS:
        with pytest.raises(ValueError) as refused:
            ENTRIES[entry](engine, value)
        message = str(refused.value)
        assert "it must be" in message and "\n" not in message and len(message) < 200, message


@pytest.mark.parametrize("entry", COUNTS)
def test_a_count_is_a_whole_number(engine, entry):
    for value in (0.5, 1e20):
        with pytest.raises(ValueError, match=r"it must be (a whole number|.*at most)"):
            COUNTS[entry](engine, value)


@pytest.mark.parametrize("entry", ["prompt", "prompt of several", "biased token"])
def test_ids_are_those_of_the_tokenizer(engine, entry):
    last = engine.tokenizer.vocab_size - 1
    ENTRIES[entry](engine, last)
    with pytest.raises(
        ValueError, match=rf"is {last + 1}; it must be at least 0 and at most {last}"
    ):
        ENTRIES[entry](engine, last + 1)


def test_an_invalid_request_does_not_affect_the_others_in_its_batch(engine):
    good = Request(
        prompt_ids=engine.encode_prompt("Once upon"),
        max_new_tokens=12,
        sampling=SamplingParams(seed=1),
    )
    batch = engine.new_batch(1)
    expected = batch.add(good)
    while batch.active or batch.waiting:
        batch.step()
    batch = engine.new_batch(3)
    row = batch.add(good)
    batch.step()
    for bad in (
        Request(prompt_ids=(1, -1)),
        Request(prompt_ids=(1, engine.tokenizer.vocab_size)),
        Request(prompt_ids=(1, 2.0)),  # type: ignore[arg-type]
        Request(prompt_ids=()),
        Request(prompt_ids=(1,), sampling=SamplingParams(logit_bias=((10**6, 1.0),))),
    ):
        with pytest.raises(ValueError):
            batch.add(bad)
    while batch.active or batch.waiting:
        batch.step()
    assert row.output_ids == expected.output_ids and len(row.output_ids) > 1


PADDING = 100


@pytest.fixture
def padded(engine) -> Engine:
    """An engine whose head has padding rows that are likelier than any token."""
    config = engine.model.config
    rows = config.vocab_size
    model = GPT(**{**vars(config), "vocab_size": rows + PADDING})
    state = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        likeliest = torch.cat([state[name] * 3, state[name] * -3])
        state[name] = torch.cat([state[name], likeliest[-PADDING:]])
    model.load_state_dict(state)
    return Engine(model, engine.tokenizer)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0),
        SamplingParams(temperature=1.0, seed=1),
        SamplingParams(temperature=100.0, seed=2),
        SamplingParams(seed=3, top_k=5, top_p=0.9, min_p=0.01),
        SamplingParams(
            seed=4, repetition_penalty=1.3, presence_penalty=1.0, no_repeat_ngram_size=2
        ),
    ],
    ids=["greedy", "drawn", "hot", "limited", "penalized"],
)
def test_padding_ids_are_never_sampled_or_reported(engine, padded, sampling):
    ids = torch.tensor([engine.encode_prompt("Once upon a time")])
    with torch.no_grad():
        assert padded.model(ids)[0, -1].argmax() >= engine.tokenizer.vocab_size  # without the limit
    prompts = ["", "Once upon a time", "it"]
    expected = engine.generate_batch(prompts, 24, sampling, logprobs=3, num_samples=2)
    found = padded.generate_batch(prompts, 24, sampling, logprobs=3, num_samples=2)
    assert [[one.token_ids for one in group] for group in found] == [
        [one.token_ids for one in group] for group in expected
    ]  # as without the padding
    for one in (one for group in found for one in group):
        assert all(
            token < engine.tokenizer.vocab_size for p in one.logprobs for token, _ in p.top_logprobs
        )
    assert padded.generate("it", 24, sampling) == engine.generate("it", 24, sampling)
