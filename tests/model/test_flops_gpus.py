import pytest

from gnano.config.model_config import PRESETS
from gnano.model.flops import GPUS, compute_mfu, flops_per_token, get_gpu, lookup_gpu, peak_flops

# driver names and bf16 TFLOP/s
KNOWN = {
    "A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA H100 80GB HBM3": 989.5,
    "NVIDIA H100 PCIe": 756.5,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200": 989.5,
    "NVIDIA H200 NVL": 835.5,
    "NVIDIA B200": 2250.0,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 5090": 209.5,
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": 503.8,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": 503.8,
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": 438.9,
    "NVIDIA L40S": 362.05,
    "AMD Instinct MI300X": 1307.4,
}
# similar names of slower GPUs and slices
UNKNOWN = [
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    "NVIDIA A100-SXM-64GB",
    "NVIDIA A800-SXM4-80GB",
    "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
    "NVIDIA H200 MIG 1g.18gb",
    "NVIDIA H800",
    "NVIDIA H20",
    "NVIDIA GH200 480GB",
    "NVIDIA B200 MIG 1g.23gb",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 5090 D",
    "NVIDIA GeForce RTX 5090 Laptop GPU",
    "NVIDIA RTX 6000 Ada Generation",
    "NVIDIA RTX PRO 5000 Blackwell",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb",
    "NVIDIA L40",
    "NVIDIA L4",
    "AMD Instinct MI300A",
    "AMD Instinct MI325X",
    "Tesla V100-SXM2-32GB",
    "",
]
# multiprocessors × dense bf16 FLOPs per clock × boost clock in GHz, from which vendors compute
# their figures. Tensor cores of GeForce cards accumulate in fp32 at half their rate.
CLOCKS = {
    "a100": (108, 2_048, 1.410),
    "h100-pcie": (114, 4_096, 1.620),
    "h100": (132, 4_096, 1.830),
    "h200": (132, 4_096, 1.830),
    "rtx-4090": (128, 512, 2.520),
    "rtx-5090": (170, 512, 2.407),
    "rtx-pro-6000": (188, 1_024, 2.617),
    "l40s": (142, 1_024, 2.490),
    "mi300x": (304, 2_048, 2.100),
}


@pytest.mark.parametrize(("device", "tflops"), KNOWN.items())
def test_a_gpu_is_identified_by_its_driver_name(device, tflops):
    assert peak_flops(device, "bf16") == peak_flops(device, "fp16") == tflops * 1e12
    assert peak_flops(device, "fp32") is None


@pytest.mark.parametrize("device", UNKNOWN)
def test_slices_laptop_and_regional_gpus_are_unknown(device):
    assert lookup_gpu(device) is None
    assert all(peak_flops(device, precision) is None for precision in ("bf16", "fp16", "fp8"))
    assert compute_mfu(1e5, PRESETS["1b"], 1, device, "bf16") is None


@pytest.mark.parametrize(("name", "clock"), CLOCKS.items())
def test_peaks_follow_from_multiprocessors_and_clock(name, clock):
    multiprocessors, flops, gigahertz = clock
    expected = multiprocessors * flops * gigahertz / 1_000
    assert get_gpu(name).bf16_tflops == pytest.approx(expected, rel=1e-3)


def test_driver_names_are_unique_and_fp8_is_twice_as_fast():
    for device in KNOWN:
        assert get_gpu(device) is lookup_gpu(device)
        assert sum(lookup_gpu(device) is gpu for gpu in GPUS) == 1
    assert {gpu.name for gpu in GPUS} == {get_gpu(device).name for device in KNOWN}
    for gpu in GPUS:
        assert gpu.fp8_tflops is None or gpu.fp8_tflops == pytest.approx(
            2 * gpu.bf16_tflops, rel=0.02
        )


def test_the_goal_of_94_000_tokens_a_second_on_an_h200_is_60_percent():
    share = compute_mfu(94_000, PRESETS["1b"], 1, "NVIDIA H200", "bf16")
    assert share == pytest.approx(0.597, abs=5e-4)
    assert share == 94_000 * flops_per_token(PRESETS["1b"]) / 989.5e12
    assert compute_mfu(188_000, PRESETS["1b"], 2, "NVIDIA H200", "bf16") == share


def test_fp8_has_the_same_reference_peak_as_bf16():
    for device in ("NVIDIA H200", "NVIDIA A100-SXM4-80GB"):
        shares = {compute_mfu(1e5, PRESETS["1b"], 1, device, p) for p in ("bf16", "fp16", "fp8")}
        assert len(shares) == 1
    assert compute_mfu(1e5, PRESETS["1b"], 1, "NVIDIA H200", "fp32") is None


@pytest.mark.parametrize("name", ["h200", "H200", "NVIDIA H200", " h200 ", "RTX 4090", "rtx_4090"])
def test_a_gpu_name_may_vary_in_case_and_spaces(name):
    assert get_gpu(name).name in ("h200", "rtx-4090")


@pytest.mark.parametrize(
    ("name", "meant"), [("4090", "rtx-4090"), ("h20o", "h200"), ("a10", "a100")]
)
def test_an_unknown_gpu_gets_suggestions(name, meant):
    with pytest.raises(ValueError, match=rf"did you mean .*'{meant}'"):
        get_gpu(name)


def test_a_name_without_similar_ones_gets_the_complete_list():
    with pytest.raises(ValueError, match=r"Known GPUs: a100-40gb, a100, .*mi300x"):
        get_gpu("")
