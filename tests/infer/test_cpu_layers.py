"""Fused projections compute the same."""

import torch

from gnano.config.inference_config import SamplingParams
from gnano.infer.cpu_layers import fuse_projections
from gnano.infer.throughput import count_weight_bytes
from gnano.model.kv_cache import KVCache

GREEDY = SamplingParams(temperature=0)


def test_fused_projections_compute_the_same_with_and_without_a_cache(make_engine):
    engine, fused = make_engine(), make_engine()
    size = count_weight_bytes(engine.model)
    fuse_projections(fused.model)
    assert count_weight_bytes(fused.model) == size, "each matrix is kept once"
    ids = torch.randint(engine.model.config.vocab_size, (3, 40))
    with torch.no_grad():
        expected, found = engine.model(ids), fused.model(ids)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
        cache = KVCache(fused.model.config, 3, 40)
        parts = [fused.model(part, cache) for part in ids.split([17, 1, 22], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-4, rtol=1e-5)


def test_fused_projections_generate_the_same_texts(make_engine):
    engine, fused = make_engine(), make_engine()
    fuse_projections(fused.model)
    prompts = ["", "Once upon a time", "東京", "word " * 12]
    expected = [engine.generate(prompt, 24, GREEDY) for prompt in prompts]
    assert [fused.generate(prompt, 24, GREEDY) for prompt in prompts] == expected
    assert [found[0].text for found in fused.generate_batch(prompts, 24, GREEDY)] == expected
