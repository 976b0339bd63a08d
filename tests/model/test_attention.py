"""RoPE, and the KV cache."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnano.config.model_config import ModelConfig
from gnano.model.attention import KVCache, attend
from gnano.model.rope import Rope, rope_table

TABLE_LENGTH = 512
LENGTH = 20
CPU = torch.device("cpu")


def unit_vector(seed: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(size, generator=generator, dtype=torch.float64)
    return F.normalize(vector, dim=0)


def at(position: int, vector: torch.Tensor, theta: float) -> torch.Tensor:
    """Return the vector rotated as a query or key of a position."""
    config = ModelConfig(
        n_embd=len(vector), n_head=1, n_kv_head=1, block_size=TABLE_LENGTH, rope_theta=theta
    )
    table = rope_table(config, CPU)
    rope = Rope(*(part[position : position + 1] for part in table))
    turned: torch.Tensor = rope.rotate(vector.view(1, 1, 1, -1)).flatten()
    return turned


shapes = {
    "size": st.sampled_from([2, 16, 64, 128]),
    "theta": st.sampled_from([10_000.0, 500_000.0]),
    "seed": st.integers(0, 10_000),
}


@settings(deadline=None)
@given(first=st.integers(0, 255), distance=st.integers(0, 255), **shapes)
def test_attention_depends_on_the_distance_only(first, distance, size, theta, seed):
    q, k = unit_vector(seed, size), unit_vector(seed + 1, size)
    near = at(distance, q, theta) @ at(0, k, theta)
    far = at(first + distance, q, theta) @ at(first, k, theta)
    assert far.item() == pytest.approx(near.item(), abs=1e-4)


@settings(deadline=None)
@given(position=st.integers(0, TABLE_LENGTH - 1), **shapes)
def test_rotation_keeps_norms_and_position_0(position, size, theta, seed):
    vector = unit_vector(seed, size)
    assert at(position, vector, theta).norm().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(at(0, vector, theta), vector)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_each_pair_rotates_by_its_angle(theta):
    size = 16
    for pair in range(size // 2):
        vector = torch.zeros(size, dtype=torch.float64)
        vector[pair] = 1
        for position in (1, 7, TABLE_LENGTH - 1):
            angle = position * theta ** (-2 * pair / size)
            turned = at(position, vector, theta)
            assert turned[pair].item() == pytest.approx(math.cos(angle), abs=1e-4)
            assert turned[pair + size // 2].item() == pytest.approx(math.sin(angle), abs=1e-4)


def test_positions_stay_distinct_in_bf16(make_model, random_ids):
    """With angles rounded to bf16, distant positions would be equal."""
    model = make_model(n_layer=1, block_size=TABLE_LENGTH)
    ids = random_ids(model, 1, TABLE_LENGTH)
    with torch.no_grad():
        rounded = model.bfloat16()(ids)
        precise = model.float()(ids)
    # both have the same weights, so only activations are rounded
    assert (rounded - precise)[:, 256:].norm() / precise[:, 256:].norm() < 0.03


def test_the_head_keeps_its_dtype():
    for dtype in (torch.float32, torch.bfloat16):
        assert at(3, torch.ones(16, dtype=dtype), 10_000.0).dtype == dtype


def cached(model, ids, chunks):
    """Return the logits of a sequence, computed chunk by chunk."""
    cache = KVCache(model.config, len(ids), ids.shape[1])
    for layer in cache.layers:  # unwritten positions must never be read
        layer.k_BKTE.fill_(float("nan"))
        layer.v_BKTE.fill_(float("nan"))
    with torch.no_grad():
        logits = torch.cat([model(part, cache) for part in ids.split(chunks, dim=1)], dim=1)
    assert cache.lengths.max() == ids.shape[1]
    return logits


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize(
    "chunks",
    [[LENGTH], [9, 1, 10], [14] + [1] * 6, [1] * LENGTH],
    ids=["at-once", "in-chunks", "prompt-then-tokens", "token-by-token"],
)
def test_cached_logits_are_those_of_transformers(
    n_kv_head, chunks, make_model, as_transformers, random_ids
):
    model = make_model(n_kv_head=n_kv_head)
    ids = random_ids(model, 3, LENGTH)
    with torch.no_grad():
        expected = as_transformers(model)(ids).logits
    torch.testing.assert_close(cached(model, ids, chunks), expected, atol=1e-4, rtol=0)


# the fixtures are functions without state
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_cache_changes_nothing_however_the_text_is_divided(
    cuts, batch, seed, make_model, random_ids
):
    model = make_model(seed=seed % 3)
    ids = random_ids(model, batch, LENGTH, seed)
    borders = [0, *sorted(cuts), LENGTH]
    chunks = [end - start for start, end in pairwise(borders)]
    with torch.no_grad():
        expected = model(ids)
    torch.testing.assert_close(cached(model, ids, chunks), expected, atol=1e-4, rtol=0)


def test_a_cached_text_is_limited_by_the_context(make_model, random_ids):
    model = make_model(block_size=10)
    ids = random_ids(model, 1, 11)
    cache = KVCache(model.config, 1, 11)
    with torch.no_grad():
        model(ids[:, :10], cache)
        with pytest.raises(
            ValueError, match=r"^11 tokens do not fit in the model's context of 10\.$"
        ):
            model(ids[:, 10:], cache)


def test_a_full_cache_is_an_error(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 6)
    with pytest.raises((AssertionError, ValueError)):
        cache = KVCache(model.config, 1, 4)
        for token in ids.split(1, dim=1):
            model(token, cache)


def test_the_cache_can_be_in_bf16(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 2, LENGTH)
    with torch.no_grad():
        expected = model(ids)
        model.compute_dtype = torch.bfloat16
        cache = KVCache(model.config, 2, LENGTH, dtype=torch.bfloat16)
        logits = torch.cat([model(part, cache) for part in ids.split([16, 1, 3], dim=1)], dim=1)
    assert (logits - expected).norm() / expected.norm() < 0.05


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    more=st.lists(st.integers(1, 3), max_size=3),
    heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1000),
)
def test_rows_of_different_lengths_do_not_affect_each_other(
    lengths, more, heads, seed, make_model, random_ids
):
    model = make_model(n_kv_head=heads, seed=seed % 3)
    total = max(lengths) + sum(more)
    texts = random_ids(model, len(lengths), total, seed)
    padded = texts[:, : max(lengths)].clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 0
    cache = KVCache(model.config, len(lengths), total)
    with torch.no_grad():
        parts = [model(padded, cache)]
        cache.lengths[:] = lengths
        for size in more:
            at = [range(held, held + size) for held in cache.lengths]
            parts.append(
                model(torch.stack([texts[row, list(r)] for row, r in enumerate(at)]), cache)
            )
        for row, length in enumerate(lengths):
            found = torch.cat([parts[0][row, :length], *(part[row] for part in parts[1:])])
            expected = model(texts[row : row + 1, : len(found)])[0]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_row_can_be_filled_separately_and_copied(make_model, random_ids):
    """As in continuous batching, when one text ends and another starts."""
    model = make_model()
    a, b = random_ids(model, 1, 9, 1), random_ids(model, 1, 6, 2)
    cache = KVCache(model.config, 3, LENGTH)
    with torch.no_grad():
        model(a[:, :8], cache.slice_rows(0, 1))
        model(b[:, :5], cache.slice_rows(1, 2))
        assert cache.lengths.tolist() == [8, 5, 0]
        cache.copy_row(1, target=0)
        cache.copy_row(1, target=2)
        both = model(b[:, 5:].expand(2, 1), cache.slice_rows(0, 2))
        expected = model(b)[0, -1]
    assert cache.lengths.tolist() == [6, 6, 5]
    for row in both:
        torch.testing.assert_close(row[-1], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_in_tiles_a_row_does_not_depend_on_the_lengths_of_others(n_kv_head, dtype):
    """Attention is the same bit for bit, and that of the row's own keys up to rounding."""
    config = ModelConfig(
        n_embd=128, n_head=4, n_kv_head=n_kv_head, n_layer=1, ffn_hidden=64, block_size=600
    )
    lengths = [1, 127, 128, 200, 511]
    torch.manual_seed(0)
    q_BHTE = torch.randn(len(lengths), 4, 1, 32).to(dtype)
    k_BKTE, v_BKTE = torch.randn(2, len(lengths), n_kv_head, 640, 32).to(dtype)

    def step(rows):
        cache = KVCache(config, len(rows), 600, dtype, in_tiles=True)
        [layer] = cache.layers
        layer.k_BKTE[:], layer.v_BKTE[:] = k_BKTE[rows], v_BKTE[rows]
        cache.lengths[:] = [lengths[row] for row in rows]
        positions_B1 = cache.advance(1)
        assert positions_B1 is not None
        own = [slice(lengths[row], lengths[row] + 1) for row in rows]
        new = (
            torch.stack([x[row, :, at] for row, at in zip(rows, own, strict=True)])
            for x in (k_BKTE, v_BKTE)
        )
        keys, values = layer.append(*new)
        mask = (torch.arange(layer.end) <= positions_B1[..., None])[:, None]
        return attend(q_BHTE[rows], keys, values, mask=mask)

    together = step(range(len(lengths)))
    for row, length in enumerate(lengths):
        assert torch.equal(together[row], step([0, row])[1])
        assert torch.equal(together[row], step([row])[0])
        q, k, v = (x[row].double() for x in (q_BHTE, k_BKTE, v_BKTE))
        k, v = (x[:, : length + 1].repeat_interleave(4 // n_kv_head, 0) for x in (k, v))
        expected = (q @ k.mT / math.sqrt(32)).softmax(-1) @ v
        near = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(together[row].double(), expected, atol=near, rtol=near)
