"""A prefix cache saves work and changes no text."""

from contextlib import closing
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.infer.conftest import generate_ids

from gnano.config.inference_config import SamplingParams
from gnano.infer import continuous_batching, prefix_cache
from gnano.infer.engine import Engine
from gnano.infer.prefix_cache import PREFILL_BLOCK, PrefixCache
from gnano.infer.request import Request
from gnano.model.attention import KVCache

GREEDY = SamplingParams(temperature=0)


@pytest.fixture
def small_blocks(monkeypatch):
    for module in (prefix_cache, continuous_batching):
        monkeypatch.setattr(module, "PREFILL_BLOCK", 4)


@pytest.fixture
def computed(engine, monkeypatch):
    """A list that receives the number of tokens of each call of the model."""
    seen = []
    hidden = engine.model.hidden_states

    def watched(ids, *rest):
        seen.append(ids.shape[1])
        return hidden(ids, *rest)

    monkeypatch.setattr(engine.model, "hidden_states", watched)
    return seen


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    turns=st.lists(
        st.tuples(st.lists(st.integers(0, 290), min_size=1, max_size=12), st.integers(1, 9)),
        min_size=1,
        max_size=6,
    ),
    restarts=st.sets(st.integers(0, 5)),
    num_read=st.integers(1, 9),
    max_bytes=st.sampled_from([2**20, 10_000]),
)
@pytest.mark.usefixtures("small_blocks")
def test_a_conversation_gives_the_same_texts(engine, turns, restarts, num_read, max_bytes):
    """Also if it restarts, if answers are stopped, and if there is no space for all."""
    text: list[int] = []
    batch = engine.new_batch(prefix_cache=PrefixCache(max_bytes))
    for number, (question, tokens) in enumerate(turns):
        text = [*([] if number in restarts else text), *question][-80:]
        output = []
        with closing(engine.stream(text, tokens, GREEDY, batch=batch)) as stream:
            for _, sequence in islice(stream, num_read):
                output = list(sequence.output_ids)
        assert output == generate_ids(engine, text, tokens, GREEDY)[:num_read]
        text += output


@pytest.mark.usefixtures("small_blocks")
def test_only_the_new_part_of_a_prompt_is_computed(engine, computed):
    batch = engine.new_batch(2, prefix_cache=PrefixCache())
    prompt = tuple(range(5, 15))  # two blocks and two tokens
    for ids, cached, expected in (
        (prompt, 0, [4, 4, 2]),
        (prompt, 8, [2]),
        ((*prompt, 1, 2, 3), 8, [4, 1]),
        (prompt[:8], 4, [4]),  # the last token is computed, for its logits
        ((1, *prompt), 0, [4, 4, 3]),
        ((*prompt, 1, 2, 3, 4), 12, [2]),
    ):
        computed.clear()
        sequence = batch.add(Request(prompt_ids=ids, max_new_tokens=1, sampling=GREEDY))
        batch.step()
        assert sequence.finish_reason and sequence.cached_tokens == cached
        assert computed == expected


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_is_found_is_what_would_be_computed_bit_for_bit(make_engine, save_engine, dtype):
    folder = save_engine(make_engine(block_size=3 * PREFILL_BLOCK))
    engine = Engine.load(folder, "cpu", dtype)
    cache = PrefixCache()
    ids = tuple(torch.randint(290, (3 * PREFILL_BLOCK,), generator=torch.manual_seed(1)).tolist())
    shared, own = ids[: 2 * PREFILL_BLOCK + 40], ids[: 2 * PREFILL_BLOCK + 9]
    request = Request(prompt_ids=(*own, 7), max_new_tokens=30, sampling=GREEDY, logprobs=3)

    def run(batch):
        sequence = batch.add(request)
        while batch.active or batch.waiting:
            batch.step()
        return sequence

    batch = engine.new_batch(3, prefix_cache=cache)
    for prompt in (shared, own[:PREFILL_BLOCK]):
        batch.add(Request(prompt_ids=prompt, max_new_tokens=3, sampling=GREEDY))
    batch.step()
    found, expected = run(batch), run(engine.new_batch(3))
    assert found.cached_tokens == 2 * PREFILL_BLOCK and expected.cached_tokens == 0
    assert found.output_ids == expected.output_ids and found.logprobs == expected.logprobs


@pytest.mark.usefixtures("small_blocks")
def test_it_never_holds_more_than_its_limit_and_drops_what_was_used_least(engine):
    row = KVCache(engine.model.config, 1, 40)
    block_bytes = 4 * 2 * 2 * 2 * 16 * 4  # tokens, keys and values, layers, heads, size, fp32
    cache = PrefixCache(5 * block_bytes + 1)
    first, second = tuple(range(12)), tuple(range(50, 62))
    cache.store(first, row)
    assert cache.num_bytes == 3 * block_bytes
    cache.store(second, row)
    # the end of the first prompt went before its beginning
    assert cache.num_bytes == 5 * block_bytes
    assert cache.restore((*first, 1), row) == 8 and cache.restore((*second, 1), row) == 12
    cache.restore((*first, 1), row)
    cache.store((99, *first), row)
    assert cache.num_bytes == 5 * block_bytes
    assert cache.restore((*second, 1), row) == 0, "it was used before the first"
    cache = PrefixCache(0)
    cache.store(first, row)
    assert cache.num_bytes == 0 and cache.restore((*first, 1), row) == 0
