"""What runs on a real CUDA GPU agrees with a CPU and with the predictions (`make gpu`)."""

from pathlib import Path

import pytest
import torch

from gnano.config.inference_config import Quantization, SamplingParams
from gnano.config.model_config import PRESETS
from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.data.packed_dataset import Batch
from gnano.doctor.numeric_tests import LAYER_TOLERANCES, MASKS, compare_layer, device_precisions
from gnano.doctor.trial_runs import BASE, prepare_trial
from gnano.infer.engine import Engine
from gnano.infer.throughput import measure_read_bandwidth
from gnano.model.flops import lookup_gpu
from gnano.train.distributed.context import DistContext
from gnano.train.estimate import estimate_memory
from gnano.train.train_step import TrainState

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp8"])
def test_a_layer_computes_what_a_cpu_computes(precision, mask, compiled):
    if precision == "fp8" and "fp8" not in device_precisions(GPU):
        pytest.skip("this GPU has no FP8")
    error, tensor = compare_layer(GPU, mask, precision, compiled)
    assert error <= LAYER_TOLERANCES[precision], tensor


@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_quantized_weights_decode_as_on_a_cpu(quant: Quantization, tmp_path: Path):
    """Both round the weights in the same way, so fp32 differs by the order of its sums only."""
    prepare_trial(tmp_path, "cpu")
    texts = []
    for device in ("cuda", "cpu"):
        engine = Engine.load(tmp_path / BASE, device, "fp32", quant)
        texts.append(engine.generate("the river", 32, SamplingParams(temperature=0)))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_compiled_step_waits_for_nothing_and_needs_the_predicted_memory(precision, tmp_path):
    if precision not in device_precisions(GPU):
        pytest.skip(f"this GPU has no {precision}")
    shape = PRESETS["124m"]
    config = TrainConfig(
        steps=100,
        tokens_per_step=8 * shape.block_size,
        micro_batch_size=8,
        precision=precision,
        device="cuda",
        compile="yes",
    )
    with DistContext.init("cuda") as world:
        state = TrainState(Recipe(model=shape, train=config), tmp_path, world)
    ids = torch.randint(0, shape.vocab_size, (8, shape.block_size + 1), device=GPU)
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None)
    for step in range(3):
        state.train_step([batch], step)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metrics = state.train_step([batch], 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert metrics.isfinite().all()
    predicted = estimate_memory(shape, config).allocated_bytes
    assert torch.cuda.max_memory_allocated() == pytest.approx(predicted, rel=0.1)


def test_the_measured_bandwidth_is_near_the_published_one():
    spec = lookup_gpu(torch.cuda.get_device_name(GPU))
    if spec is None:
        pytest.skip("no published figure is known")
    assert 0.6 < measure_read_bandwidth(GPU) / 1e12 / spec.bandwidth_tb_per_s < 1.02
