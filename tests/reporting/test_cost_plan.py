from dataclasses import replace
from typing import Any

import pytest

from gnano.config.model_config import PRESETS
from gnano.config.recipe import Recipe, load_recipe
from gnano.config.train_config import TrainConfig
from gnano.model.flops import GPUS, flops_per_token, get_gpu
from gnano.reporting.cost_plan import CostEstimate, format_plan, plan_cost
from gnano.train.estimate import estimate_memory, fits_in_memory


@pytest.fixture(scope="module")
def reference() -> Recipe:
    return load_recipe("1b")


def estimate(recipe: Recipe, gpu: str, gpus: int = 1, **options: Any) -> CostEstimate:
    estimated = plan_cost(recipe, gpu, gpus, **options).selected
    assert estimated is not None
    return estimated


def changed(recipe: Recipe, **train: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **train))


def test_hours_and_cost_follow_from_the_mfu(reference):
    found = plan_cost(reference, "h200", gpus=2, gpu_hour_price=3.5, mfu=0.5)
    estimated = estimate(reference, "h200", gpus=2, gpu_hour_price=3.5, mfu=0.5)
    tokens_per_s = 0.5 * 2 * 989.5e12 / flops_per_token(PRESETS["1b"])
    hours = 50_000 * 262_144 / tokens_per_s / 3_600
    assert estimated.tokens_per_s == pytest.approx(tokens_per_s)
    assert estimated.hours == pytest.approx(hours)
    assert estimated.dollars == pytest.approx(hours * 2 * 3.5)
    assert estimated.kwh == pytest.approx(hours * 2 * 0.7)
    assert found.tokens == 13_107_200_000
    assert found.flops == 13_107_200_000 * flops_per_token(PRESETS["1b"])


def test_the_reference_model_fits_two_h200_with_the_published_split(reference):
    assert plan_cost(reference, gpus=2).micro_steps == 4  # 32 × 4 × 1,024 × 2 GPUs
    estimated = estimate(reference, "h200", gpus=2)
    assert estimated.fits and estimated.parallel == "ddp" and estimated.remedy is None
    assert estimated.memory.total_bytes < 80e9
    published = estimate(changed(reference, micro_batch_size=8), "h200", gpus=2)
    assert published.memory.total_bytes < 60e9


def test_the_text_has_all_figures(reference):
    text = format_plan(plan_cost(reference, "h200", gpus=2, gpu_hour_price=3.5))
    for words in (
        "1,050,002,688", "90,060,544", "12.5 per parameter", "about 20",
        "262,144 tokens = 2 GPUs × 32 × 1,024 × 4 micro-batches", "optimizer moments", "MFU",
        "expected, not measured", "per GPU-hour", "kWh",
    ):  # fmt: skip
        assert words in text, words
    assert "WARNING" not in text


def test_every_known_gpu_is_in_the_table(reference):
    text = format_plan(plan_cost(reference))
    assert all(f"\n{gpu.name} " in text for gpu in GPUS)
    assert "MFU" in text and "$" not in text


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("gpu", ["rtx-4090", "rtx-5090", "a100-40gb"])
@pytest.mark.parametrize("micro_batch", [8, 32])
def test_the_suggested_change_makes_it_fit(reference, gpu, gpus, micro_batch):
    recipe = changed(reference, micro_batch_size=micro_batch, precision="bf16")
    estimated = estimate(recipe, gpu, gpus)
    if estimated.fits:
        assert estimated.remedy is None
        return
    assert estimated.remedy is not None
    words = estimated.remedy.split()
    flags = dict(zip(words, [*words[1:], ""], strict=True))
    train: dict[str, Any] = dict(
        micro_batch_size=int(flags.get("--train.micro-batch-size", micro_batch)),
        activation_checkpointing="--train.activation-checkpointing" in flags,
        parallel=flags.get("--train.parallel", estimated.parallel),
    )
    settings = replace(recipe.train, **train)
    then = estimate_memory(recipe.model, settings, int(flags.get("--gpus", gpus)))
    assert then.total_bytes == estimated.remedy_bytes
    assert fits_in_memory(then, get_gpu(gpu).memory_bytes)
    assert not fits_in_memory(estimated.memory, get_gpu(gpu).memory_bytes)


def test_a_model_too_large_for_one_gpu_is_sharded_over_more():
    model = replace(
        PRESETS["1b"], n_embd=4_096, n_head=32, n_layer=32, n_kv_head=8, ffn_hidden=14_336
    )
    train = TrainConfig(micro_batch_size=1, tokens_per_step=64 * 1_024)
    estimated = estimate(Recipe(model=model, train=train), "h100")
    assert not estimated.fits and estimated.remedy is not None
    assert "--gpus" in estimated.remedy and "--train.parallel fsdp" in estimated.remedy


def test_a_model_that_no_setting_makes_fit_is_reported():
    model = replace(PRESETS["1b"], n_embd=16_384, n_head=128, n_kv_head=128, ffn_hidden=65_536)
    train = TrainConfig(micro_batch_size=1, tokens_per_step=64 * 1_024)
    recipe = Recipe(model=model, train=train)
    assert estimate(recipe, "rtx-4090").remedy is None
    assert "No known change makes it fit" in format_plan(plan_cost(recipe, "rtx-4090"))


def test_a_larger_micro_batch_is_proposed_only_where_it_fits_and_gains(reference):
    small = changed(reference, micro_batch_size=8)
    assert "micro-batch-size 64 fits" in format_plan(plan_cost(small, "h200"))
    assert "micro-batch-size 8 fits" in format_plan(
        plan_cost(changed(reference, micro_batch_size=2), "a100-40gb")
    )
    assert " fits and" not in format_plan(plan_cost(reference, "h200"))  # it would gain too little


def test_a_goal_beyond_every_published_run_is_called_that(reference):
    assert "beyond every published run" in format_plan(plan_cost(reference, "h200", mfu=0.6))
    assert "beyond" not in format_plan(plan_cost(reference, "h200", mfu=0.45))


def test_fp8_is_planned_only_where_there_is_fp8(reference):
    recipe = changed(reference, precision="fp8")
    estimated = estimate(recipe, "a100")
    assert not estimated.fits and estimated.tokens_per_s is None
    assert estimated.remedy == "--train.precision bf16"
    assert "a100 has no FP8" in format_plan(plan_cost(recipe, "a100"))
    assert "of the FP8 peak it is" in format_plan(plan_cost(recipe, "h200"))


def test_the_speed_of_fp32_is_unknown(reference):
    recipe = changed(reference, precision="fp32")
    estimated = estimate(recipe, "h200", gpu_hour_price=1.0)
    assert estimated.tokens_per_s is None and estimated.dollars is None
    assert "unknown in fp32" in format_plan(plan_cost(recipe, "h200"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gpu_name": "h20o"}, "did you mean 'h200'"),
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": 3}, "cannot be split over 3 ranks"),
        ({"gpu_hour_price": -1.0}, "price is -1"),
        ({"mfu": 45.0}, "mfu is 45"),
    ],
)
def test_errors_are_one_sentence(reference, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan_cost(reference, **options)


def test_uneven_replica_groups_are_refused(reference):
    with pytest.raises(ValueError, match="2 GPUs cannot form 4 groups"):
        plan_cost(changed(reference, hsdp_replicas=4), gpus=2)
