"""Packed documents are computed as if each were the only one in its row."""

from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnano.model.attention import KVCache
from gnano.model.fused_cross_entropy import IGNORE_INDEX

LENGTH = 24
BOUNDARIES = [0, 5, 6, 17, LENGTH]  # four documents, one of a single token
HEADS = pytest.mark.parametrize("n_kv_head", [1, 2, 4])


def segments(boundaries, batch=1):
    """Return document ids [rows, T], the same in all rows."""
    lengths = torch.tensor([stop - start for start, stop in pairwise(boundaries)])
    return torch.arange(len(lengths)).repeat_interleave(lengths).repeat(batch, 1)


def logits_per_document(model, ids, boundaries):
    """Return the logits of the documents, each computed separately from position 0."""
    parts = [model(ids[:, start:stop]) for start, stop in pairwise(boundaries)]
    return torch.cat(parts, dim=1)


# the fixtures are functions without state
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)), seed=st.integers(0, 1000))
def test_a_packed_document_has_the_logits_of_a_single_one(cuts, seed, make_model, random_ids):
    model = make_model(seed=seed % 3)
    ids = random_ids(model, 2, LENGTH, seed)
    boundaries = [0, *sorted(cuts), LENGTH]
    with torch.no_grad():
        packed = model(ids, document_ids_BT=segments(boundaries, 2))
        torch.testing.assert_close(
            packed, logits_per_document(model, ids, boundaries), atol=1e-4, rtol=0
        )


@HEADS
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_packing_changes_no_gradient_beyond_rounding(
    dtype, near, n_kv_head, make_model, random_ids
):
    model = make_model(n_kv_head=n_kv_head)
    model.compute_dtype = dtype
    ids, targets = random_ids(model, 2, LENGTH), random_ids(model, 2, LENGTH, seed=1)
    targets[:, [stop - 1 for stop in BOUNDARIES[1:]]] = IGNORE_INDEX

    packed = model.loss(ids, targets, document_ids_BT=segments(BOUNDARIES, 2))
    packed.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    separate = sum(
        model.loss(ids[:, start:stop], targets[:, start:stop])
        for start, stop in pairwise(BOUNDARIES)
    )
    separate.backward()

    torch.testing.assert_close(packed, separate, atol=0, rtol=near)
    for name, parameter in model.named_parameters():
        error = (gradients[name] - parameter.grad).norm() / parameter.grad.norm()
        assert error < near, f"{name} is off by {error:.1e} of its length"


def test_documents_do_not_affect_each_other(make_model, random_ids):
    model = make_model()
    ids, numbers = random_ids(model, 1, LENGTH), segments(BOUNDARIES)
    with torch.no_grad():
        before = model(ids, document_ids_BT=numbers)
        for place in range(LENGTH):
            other = ids.clone()
            other[0, place] = (other[0, place] + 1) % model.config.vocab_size
            moved = (model(other, document_ids_BT=numbers) != before).any(-1)[0]
            inside = numbers[0] == numbers[0, place]
            later = torch.arange(LENGTH) >= place
            assert moved[place]
            assert not moved[~(inside & later)].any()


def test_each_row_has_separate_documents(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 3, LENGTH)
    boundaries = [[0, LENGTH], [0, 9, LENGTH], BOUNDARIES]
    with torch.no_grad():
        packed = model(ids, document_ids_BT=torch.cat([segments(row) for row in boundaries]))
        for row, expected in enumerate(boundaries):
            separate = logits_per_document(model, ids[row : row + 1], expected)
            torch.testing.assert_close(packed[row : row + 1], separate, atol=1e-4, rtol=0)


@HEADS
def test_one_document_per_row_changes_nothing(n_kv_head, make_model, random_ids):
    model = make_model(n_kv_head=n_kv_head)
    ids = random_ids(model, 2, LENGTH)
    for number in (0, 7):
        with torch.no_grad():
            one = model(ids, document_ids_BT=torch.full_like(ids, number, dtype=torch.int32))
            torch.testing.assert_close(one, model(ids), atol=1e-5, rtol=0)


@HEADS
def test_packed_logits_are_those_of_transformers_with_positions_from_0(
    n_kv_head, make_model, as_transformers, random_ids
):
    """Positions restart in transformers and continue here; with RoPE both are the same."""
    model = make_model(n_kv_head=n_kv_head)
    ids, numbers = random_ids(model, 2, LENGTH), segments(BOUNDARIES, 2)
    positions = torch.cat([torch.arange(stop - start) for start, stop in pairwise(BOUNDARIES)])
    hidden = torch.full((2, 1, LENGTH, LENGTH), float("-inf"))
    for query in range(LENGTH):
        for key in range(query + 1):
            if numbers[0, key] == numbers[0, query]:
                hidden[:, :, query, key] = 0
    with torch.no_grad():
        theirs = as_transformers(model)(
            ids, attention_mask=hidden, position_ids=positions.repeat(2, 1)
        ).logits
        ours = model(ids, document_ids_BT=numbers)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_packing_in_bf16_stays_near_fp32(make_model, random_ids):
    model = make_model()
    ids, numbers = random_ids(model, 2, LENGTH), segments(BOUNDARIES, 2)
    with torch.no_grad():
        precise = model(ids, document_ids_BT=numbers)
        model.compute_dtype = torch.bfloat16
        rough = model(ids, document_ids_BT=numbers)
    assert (rough - precise).norm() / precise.norm() < 0.05


def test_documents_do_not_affect_each_other_with_dropout(make_model, random_ids):
    model = make_model(dropout=0.3).train()
    ids, numbers = random_ids(model, 1, LENGTH), segments(BOUNDARIES)
    other = ids.clone()
    other[0, : BOUNDARIES[1]] = (other[0, : BOUNDARIES[1]] + 1) % model.config.vocab_size
    with torch.no_grad():
        logits = []
        for row in (ids, other):
            torch.manual_seed(0)
            logits.append(model(row, document_ids_BT=numbers)[0, BOUNDARIES[1] :])
    assert torch.equal(*logits)


def test_document_ids_and_a_cache_are_refused_together(make_model, random_ids):
    model = make_model()
    ids = random_ids(model, 1, 4)
    with pytest.raises(ValueError, match="document_ids_BT or cache, not both"):
        model(ids, KVCache(model.config, 1, 4), document_ids_BT=torch.zeros_like(ids))
