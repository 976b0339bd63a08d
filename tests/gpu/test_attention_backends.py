"""Which kernels PyTorch takes for each call of attention on a GPU.

cuDNN's attention plans for half a second for every new shape: in generation, for every token. With
a mask its gradients may be NaN, and with few key/value heads its texts wrong.
"""

import pytest
from tests.gpu.fake_gpu import run_on_fake_gpu

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("capability", "training"),
    [(80, "flash"), (89, "flash"), (90, "cudnn"), (100, "cudnn"), (120, "flash")],
)
def test_only_unmasked_training_on_h200_and_b200_takes_cudnn_and_nothing_is_unfused(
    capability, training
):
    assert run_on_fake_gpu("attention_backends", capability) == {
        "training": training,
        "training, compiled": training,
        "training, documents": "efficient",
        "training, documents, 320": "efficient",
        "evaluation": "flash",
        "prefill": "flash",
        "prefill behind a cache": "efficient",
        "prefill, rows of several lengths": "efficient",
        "decoding": "flash",
        "compiled decoding": "efficient",
    }


def test_a_deterministic_run_does_not_take_cudnn():
    backends = run_on_fake_gpu("attention_backends", 90, deterministic=True)
    assert backends["training"] == backends["training, compiled"] == "flash"
