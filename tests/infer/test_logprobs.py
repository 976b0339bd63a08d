import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from gnano.config.inference_config import SamplingParams
from gnano.infer.prefix_cache import PrefixCache
from gnano.infer.request import Request, SequenceState
from gnano.infer.sampling import TokenLogprob, compute_logprobs
from gnano.tokenizer.bpe import IncrementalDetokenizer


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
    found = compute_logprobs(torch.tensor([logits]), [token], top)[0]
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
    found = compute_logprobs(logits[None], [1], num_top=2)[0]
    assert found.logprob == pytest.approx(-2_000 - math.log(2), rel=1e-3)
    assert [token for token, _ in found.top_logprobs] == [0, 2]
    assert [value for _, value in found.top_logprobs] == pytest.approx([-math.log(2)] * 2)


def test_a_negative_number_of_alternatives_is_refused():
    with pytest.raises(ValueError, match=r"top is -1; it must be at least 0\.$"):
        compute_logprobs(torch.zeros(1, 3), [0], num_top=-1)


def test_log_probabilities_wait_for_their_text_and_end_before_a_stop_string(engine):
    tokenizer = engine.tokenizer
    text = "a 東京 b🙂 then STOP it"
    forced = tokenizer.encode(text)
    for stop, expected in (("STOP", "a 東京 b🙂 then "), ("never", text), ("🙂", "a 東京 b")):
        detokenizer = IncrementalDetokenizer([stop])
        sequence = SequenceState(Request(prompt_ids=(1,)), torch.Generator(), None, detokenizer)
        for number, token in enumerate(forced):
            if number == len(forced) - 1:
                sequence.finish_reason = "length"
            sequence.add_text(tokenizer.id_bytes[token], TokenLogprob(token, -1.0))
            known = [item.token_id for item in sequence.logprobs]
            assert known == forced[: len(known)]
            assert sequence.text.startswith(tokenizer.decode(known)), "complete characters only"
            # what is missing is at most a part of the next token
            following = forced[len(known)] if len(known) < len(forced) else 0
            missing = len(sequence.text.encode()) - len(tokenizer.decode(known).encode())
            assert missing == 0 or missing < len(tokenizer.id_bytes[following])
            if sequence.finish_reason:
                break
        assert sequence.text == expected
        assert (sequence.finish_reason == "stop") == (stop != "never")
        if stop == "never":
            assert len(sequence.logprobs) == len(forced)


@pytest.mark.parametrize("max_new_tokens", [0, 4])
def test_log_probabilities_of_a_prompt_are_those_of_transformers(
    make_engine, save_engine, max_new_tokens
):
    """The prompt is longer than a block, and in the prefix cache."""
    engine = make_engine(block_size=400)
    loading: Any = LlamaForCausalLM
    theirs = loading.from_pretrained(save_engine(engine))
    ids = tuple(torch.randint(290, (300,), generator=torch.manual_seed(1)).tolist())
    batch = engine.new_batch(2, prefix_cache=PrefixCache())
    greedy = SamplingParams(temperature=0)
    batch.add(Request(prompt_ids=ids, max_new_tokens=3, sampling=greedy))
    batch.step()
    sequence = batch.add(
        Request(
            prompt_ids=ids,
            max_new_tokens=max_new_tokens,
            sampling=greedy,
            logprobs=2,
            prompt_logprobs=True,
        )
    )
    while batch.active or batch.waiting:
        batch.step()
    assert sequence.finish_reason in ("length", "stop")
    assert len(sequence.output_ids) <= max_new_tokens
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].log_softmax(-1)
    first, *others = sequence.prompt_logprobs
    assert first is None and len(others) == len(ids) - 1
    for row, token, found in zip(expected, ids[1:], others, strict=False):
        assert found is not None and found.token_id == token
        assert found.logprob == pytest.approx(row[token].item(), abs=1e-3)
        assert [value for _, value in found.top_logprobs] == pytest.approx(
            row.topk(2).values.tolist(), abs=1e-3
        )
        # the same number in both places: lm-evaluation-harness compares them
        assert dict(found.top_logprobs).get(token, found.logprob) == found.logprob
