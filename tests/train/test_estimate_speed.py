"""Speed estimates against published runs, and their bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnano.config.model_config import PRESETS, ModelConfig
from gnano.config.train_config import TrainConfig
from gnano.model.flops import GPUS, Gpu, compute_mfu, flops_per_token, get_gpu
from gnano.train.estimate import estimate_tokens_per_s

# of the same width and depth; a feed-forward of 8/3 the width has as many weights
NANOCHAT_D32 = ModelConfig(
    vocab_size=65_536, n_embd=2_048, n_layer=32, n_head=16, n_kv_head=16, ffn_hidden=5_461,
    block_size=2_048,
)  # fmt: skip
LLAMA_8B = ModelConfig(
    vocab_size=128_256, n_embd=4_096, n_layer=32, n_head=32, n_kv_head=8, ffn_hidden=14_336,
    block_size=8_192,
)  # fmt: skip
GPT2 = ModelConfig(n_embd=768, n_layer=12, n_head=12, n_kv_head=12, ffn_hidden=2_048)


def expected_mfu(config: ModelConfig, settings: TrainConfig, gpu: Gpu) -> float:
    speed = estimate_tokens_per_s(config, settings, gpu)
    return speed * flops_per_token(config) / (gpu.bf16_tflops * 1e12)


@pytest.mark.parametrize(
    ("config", "micro_batch", "tokens_per_step", "gpu", "gpus", "published"),
    [
        # nanochat's run1000.sh: 37.6 billion tokens in 31.3 hours
        (NANOCHAT_D32, 8, 524_288, "h100", 8, 37.6e9 / 31.3 / 3_600),
        # torchtitan's docs/performance.md: 2,973 a GPU, FSDP2, selective recomputation
        (LLAMA_8B, 1, 64 * 8_192, "a100", 64, 64 * 2_973),
        # llm.c, discussion 481: 10 billion tokens in 90 minutes
        (GPT2, 64, 524_288, "a100", 8, 10e9 / 5_400),
    ],
    ids=["nanochat", "torchtitan", "llm.c"],
)
def test_estimate_is_within_a_quarter_of_published_runs(
    config, micro_batch, tokens_per_step, gpu, gpus, published
):
    settings = TrainConfig(micro_batch_size=micro_batch, tokens_per_step=tokens_per_step)
    expected = estimate_tokens_per_s(config, settings, get_gpu(gpu), gpus)
    assert expected == pytest.approx(published, rel=0.25)


settings_like = st.builds(
    lambda micro_batch, recompute: TrainConfig(
        micro_batch_size=micro_batch, tokens_per_step=2**23, activation_checkpointing=recompute
    ),
    st.sampled_from([1, 4, 16, 64]),
    st.booleans(),
)


@given(st.sampled_from(list(PRESETS.values())), settings_like, st.sampled_from(GPUS))
def test_estimate_never_exceeds_the_data_sheet(config, settings, gpu):
    share = expected_mfu(config, settings, gpu)
    assert 0 < share < 0.65
    speed = estimate_tokens_per_s(config, settings, gpu)
    names = {"h200": "NVIDIA H200", "l40s": "NVIDIA L40S"}
    if gpu.name in names:
        assert compute_mfu(speed, config, 1, names[gpu.name], "bf16") == pytest.approx(share)
    again = replace(settings, activation_checkpointing=True)
    assert estimate_tokens_per_s(config, again, gpu) <= speed
    larger = replace(settings, micro_batch_size=2 * settings.micro_batch_size)
    assert estimate_tokens_per_s(config, larger, gpu) >= speed


def test_fp8_is_faster_and_small_models_are_launch_bound():
    settings, h200 = TrainConfig(micro_batch_size=8, tokens_per_step=2**18), get_gpu("h200")
    fast = estimate_tokens_per_s(PRESETS["1b"], replace(settings, precision="fp8"), h200)
    assert fast == pytest.approx(1.10 * estimate_tokens_per_s(PRESETS["1b"], settings, h200))
    assert expected_mfu(PRESETS["demo"], settings, h200) < 0.2
