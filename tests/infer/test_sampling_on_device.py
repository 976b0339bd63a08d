"""The sampling of a GPU's steps, which does not wait for the host, draws the same tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.infer.conftest import make_generator

from gnano.config.inference_config import SamplingParams
from gnano.infer.sampling import draw_mode, draw_settings, draw_tokens, sample_tokens


@given(
    seed=st.integers(0, 10**6),
    rows=st.lists(
        st.builds(
            SamplingParams,
            temperature=st.sampled_from([0.0, 1e-40, 0.7, 1.0, 30.0]),
            top_k=st.sampled_from([0, 1, 7, 1_000]),
            top_p=st.sampled_from([1.0, 0.9, 0.3]),
            min_p=st.sampled_from([0.0, 0.05, 1.0]),
            seed=st.integers(0, 99),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_a_gpu_draws_the_tokens_of_the_same_seeds_in_a_row_without_being_asked(seed, rows):
    """In bf16, where many logits are equal; three tokens in a row of each generator."""
    generator = torch.Generator().manual_seed(seed)
    logits_BV = (torch.randn(len(rows), 600, generator=generator) * 3).bfloat16().float()
    ours, theirs = ([make_generator(s.seed) for s in rows] for _ in range(2))
    for _ in range(3):
        settings_B5 = torch.tensor(list(map(draw_settings, rows, ours)), dtype=torch.float64)
        found = draw_tokens(logits_BV, settings_B5, draw_mode(rows))
        assert found.tolist() == sample_tokens(logits_BV, rows, theirs, [None] * len(rows))


@pytest.mark.parametrize("mode", ["greedy", "plain", "truncated"])
def test_logits_that_are_not_finite_draw_an_id_that_exists(mode):
    """An index beyond the end would end the process on a GPU."""
    logits_BV = torch.full((3, 40), torch.nan)
    logits_BV[1, :20], logits_BV[2] = torch.inf, -torch.inf
    sampling = SamplingParams(top_p=0.9, seed=1)
    settings_B5 = torch.tensor([draw_settings(sampling, make_generator(1))] * 3).double()
    ids = draw_tokens(logits_BV, settings_B5, mode)
    assert ids.min() >= 0 and ids.max() < 40
