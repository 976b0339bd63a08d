"""The engine: streams, stop strings, seeds and the end of the context."""

from contextlib import closing
from itertools import islice
from typing import Any

import pytest
import torch
from tests.infer.conftest import generate_ids

from gnano import load
from gnano.config.inference_config import SamplingParams
from gnano.infer.engine import Engine

GREEDY = SamplingParams(temperature=0)
PROMPTS = [
    "",
    "Once upon a time",
    "Once upon a time there was a small engine",
    "it",
    " ",
    "東京 and 🙂",
    "Überall naïve Cafés, that no training text had:",
    "1 + 1 = 2\n\n2 + 2 =",
    "<|endoftext|>",
    "word " * 12,
]


def end_within(engine: Engine, ids: list[int]) -> list[int]:
    """Make the model end these ids by end-of-text; return the ids before it."""
    weight, end = engine.model.lm_head.weight, engine.tokenizer.end_of_text_id
    assert end not in ids
    last = next(token for token in reversed(ids) if token != ids[0])
    with torch.no_grad():  # swaps the probabilities of `last` and end-of-text
        weight[[last, end]] = weight[[end, last]]
    return ids[: ids.index(last)]


@pytest.mark.slow
def test_greedy_tokens_are_those_of_transformers(engine, save_engine):
    from transformers import LlamaForCausalLM

    theirs: Any = LlamaForCausalLM.from_pretrained(save_engine(engine))
    end = engine.tokenizer.end_of_text_id
    seen = set()
    for prompt in PROMPTS:
        start = torch.tensor([[end, *engine.tokenizer.encode(prompt)]])
        output = theirs.generate(
            start,
            attention_mask=torch.ones_like(start),
            max_new_tokens=32,
            do_sample=False,
            pad_token_id=end,
        )
        expected = output[0, start.shape[1] :].tolist()
        if end in expected:
            expected = expected[: expected.index(end)]
        ids = generate_ids(engine, prompt, 32, GREEDY)
        assert ids == expected, prompt
        assert engine.generate(prompt, 32, GREEDY) == engine.tokenizer.decode(expected)
        seen.update(ids)
    assert len(seen) > 20, "the texts must differ"


def test_a_saved_engine_generates_the_same_texts(engine, save_engine):
    loaded = load(str(save_engine(engine)), device="cpu")
    for prompt in PROMPTS:
        assert loaded.generate(prompt, 24, GREEDY) == engine.generate(prompt, 24, GREEDY)


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder does not exist\.$"):
        Engine.load(tmp_path / "nowhere", device="cpu")


def test_a_text_is_determined_by_its_seed(engine):
    texts = [
        engine.generate("Once", 48, SamplingParams(seed=seed)) for seed in (1, 1, 2, 3, None, None)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 5


def test_other_random_draws_do_not_change_a_text(engine):
    """Other draws of the process do not change a text, and are not changed by it."""
    sampling = SamplingParams(seed=1)
    expected = engine.generate("Once", 24, sampling)
    torch.manual_seed(9)
    expected_draws = torch.rand(4)

    torch.manual_seed(9)
    other = engine.stream_text("upon", 24, SamplingParams(seed=2))
    pieces = []
    for piece in engine.stream_text("Once", 24, sampling):
        pieces.append(piece)
        next(other, "")
    assert torch.equal(torch.rand(4), expected_draws)
    assert "".join(pieces) == expected


@pytest.mark.parametrize("stop", [(), ("e", "ed"), ("never seen",)])
def test_the_pieces_of_a_stream_are_the_text(engine, stop):
    for seed in range(3):
        sampling = SamplingParams(seed=seed)
        pieces = list(engine.stream_text("Once", 64, sampling, stop))
        assert all(pieces), "no piece is empty"
        assert "".join(pieces) == engine.generate("Once", 64, sampling, stop)
        assert not any(text in "".join(pieces) for text in stop)


def test_a_stream_yields_text_after_each_token(engine):
    with closing(engine.stream("Once", 64, GREEDY)) as stream:
        for number, (_, sequence) in enumerate(islice(stream, 5), 1):
            assert len(sequence.output_ids) == number and sequence.finish_reason is None


def test_generation_ends_with_the_token_that_completes_a_stop_string(engine):
    def first_of(prompt):
        return engine.generate(prompt, 1, GREEDY)

    # a complete character, not the first byte of one
    prompt = next(
        p for p in ("Once", "the", *"abcdefghijklmnop") if first_of(p) and first_of(p).isascii()
    )
    first = first_of(prompt)
    assert engine.generate(prompt, 64, GREEDY, stop=[first[-1]]) == first[:-1]
    assert len(generate_ids(engine, prompt, 64, GREEDY, stop=[first[-1]])) == 1


def test_a_stop_string_may_cross_token_boundaries(engine):
    text = engine.generate("Once", 40, GREEDY)
    for start in range(0, len(text) - 6, 3):
        stop = text[start : start + 6]  # longer than most tokens, so that it crosses boundaries
        stopped = engine.generate("Once", 40, GREEDY, stop=[stop])
        assert stopped == text[: text.index(stop)]


def test_held_back_text_is_released_at_the_end(engine):
    text = engine.generate("Once", 40, GREEDY)
    almost = text[-3:] + "\N{NULL} and on"
    assert engine.generate("Once", 40, GREEDY, stop=[almost]) == text


def test_an_empty_stop_string_is_refused(engine):
    with pytest.raises(ValueError, match="stop string is empty"):
        engine.generate("Once", 4, GREEDY, stop=["###", ""])


def test_end_of_text_ends_the_text_and_is_not_printed(engine):
    ids = generate_ids(engine, "Once", 40, GREEDY)
    expected = end_within(engine, ids)
    assert 0 < len(expected) < len(ids) == 40
    assert generate_ids(engine, "Once", 40, GREEDY) == expected
    assert engine.generate("Once", 40, GREEDY) == engine.tokenizer.decode(expected)


def test_held_back_text_is_released_at_end_of_text(engine):
    end_within(engine, generate_ids(engine, "Once", 40, GREEDY))
    text = engine.generate("Once", 40, GREEDY)
    assert text
    assert engine.generate("Once", 40, GREEDY, stop=[text[-1] + "\N{NULL}"]) == text


@pytest.mark.parametrize("prompt", ["", "Once upon a time"])
def test_a_text_ends_when_the_context_is_full(make_engine, prompt):
    engine = make_engine(block_size=24)
    start = [engine.tokenizer.end_of_text_id, *engine.tokenizer.encode(prompt)]
    ids = generate_ids(engine, prompt, 1_000, GREEDY)
    # the last token is sampled with a full context, and need not fit
    assert len(start) + len(ids) == 24 + 1
    with torch.no_grad():
        output = engine.model(torch.tensor([start + ids[:-1]]))[0]
    assert output[len(start) - 1 :].argmax(-1).tolist() == ids


def test_a_prompt_that_fills_the_context_still_gets_one_token(make_engine):
    engine = make_engine(block_size=24)
    token = engine.tokenizer.encode("\t")
    assert len(token) == 1
    assert len(generate_ids(engine, "\t" * 23, 5, GREEDY)) == 1
    with pytest.raises(ValueError) as refusal:
        engine.generate("\t" * 24, 5, GREEDY)
    message = str(refusal.value)
    assert "25 tokens" in message and "context of 24" in message and "shorten" in message
    assert "\n" not in message


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_max_new_tokens_is_a_limit(engine, tokens):
    assert len(generate_ids(engine, "Once", tokens, SamplingParams(seed=1))) == tokens


def test_a_typed_end_of_text_is_ordinary_text(engine):
    assert engine.tokenizer.end_of_text_id not in engine.tokenizer.encode("<|endoftext|>")
    assert engine.generate("<|endoftext|>", 16, GREEDY) != engine.generate("", 16, GREEDY)


def test_an_engine_disables_dropout(engine):
    expected = engine.generate("Once", 24, GREEDY)
    for module in engine.model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.5
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    again = Engine(engine.model.train(), engine.tokenizer)
    assert again.generate("Once", 24, GREEDY) == expected


def test_a_model_that_computes_in_bf16_generates(engine):
    engine.model.compute_dtype = torch.bfloat16
    endless = SamplingParams(seed=1, logit_bias=((engine.tokenizer.end_of_text_id, -100.0),))
    assert len(generate_ids(engine, "Once upon a time", 24, endless)) == 24


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cpu:x"])
def test_a_missing_device_is_one_sentence(engine, save_engine, name):
    with pytest.raises(ValueError, match=f"There is no device '{name}'"):
        Engine.load(save_engine(engine), device=name)
