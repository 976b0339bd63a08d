"""Device names, and the limits of Apple GPUs, simulated on a CPU."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.small_models import with_train
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gnano.config.recipe import Recipe
from gnano.config.train_config import OptimizerConfig
from gnano.evals.runner import build_task_evaluator
from gnano.infer.engine import Engine
from gnano.train.distributed.context import DistContext
from gnano.train.optim.optimizer import Optimizer
from gnano.train.resolve import choose_precision
from gnano.train.trainer import train
from gnano.utils import platform_support
from gnano.utils.platform_support import compile_unsupported_reason, resolve_device

MPS = torch.device("mps")


class WithoutFp64(TorchDispatchMode):
    """Refuses fp64 tensors, as a device without fp64 does."""

    calls = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        found = operation(*arguments, **(options or {}))
        self.calls += 1
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{operation} gives fp64")
        return found


@pytest.fixture
def as_on_mps(monkeypatch):
    here = frozenset({"cpu"})
    monkeypatch.setattr(platform_support, "NO_FP64", here)
    monkeypatch.setattr("gnano.train.optim.optimizer.NO_FUSED_ADAMW_SCALING", here)
    fused = torch._fused_adamw_

    def ignoring(*arguments, grad_scale=None, found_inf=None, **options):
        return fused(*arguments, grad_scale=None, found_inf=None, **options)

    monkeypatch.setattr(torch, "_fused_adamw_", ignoring)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recipe", "sft_recipe", "dpo_recipe"])
def test_training_evaluation_and_saving_need_no_fp64(
    kind: str, request: pytest.FixtureRequest, as_on_mps: None, tmp_path: Path
) -> None:
    recipe: Recipe = request.getfixturevalue(kind)
    small = with_train(recipe, steps=3, eval_every=2, eval_tokens=256, save_every=2)
    with WithoutFp64() as device:
        result = train(small, tmp_path / "run", build_task_evaluator=build_task_evaluator)
    assert result.step >= 3 and device.calls > 1_000
    with WithoutFp64():
        assert Engine.load(result.run).encode_prompt("the")


@pytest.mark.parametrize("skipped", [0.0, 1.0])
def test_adamw_scales_and_skips_where_the_kernel_does_neither(
    skipped: float, request: pytest.FixtureRequest
) -> None:
    def stepped() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model: Any = torch.nn.Linear(3, 4, bias=False)
        optimizer = Optimizer(model, OptimizerConfig())
        for _ in range(2):
            model.weight.grad = torch.randn(4, 3)
            optimizer.step(0.1, 1.0, torch.tensor(7.0), torch.tensor(skipped))
        return [model.weight.detach(), *optimizer.state.values()]

    in_kernel = stepped()
    request.getfixturevalue("as_on_mps")
    for ours, theirs in zip(stepped(), in_kernel, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_mps_defaults_to_fp32_without_compilation() -> None:
    assert "mps" in (compile_unsupported_reason(MPS) or "")
    assert choose_precision(MPS) == "fp32"


def test_auto_never_selects_an_untested_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu" and resolve_device("mps") == "mps"


def test_a_missing_mps_device_is_refused() -> None:
    with (
        mock.patch.object(torch.backends.mps, "is_available", return_value=False),
        pytest.raises(ValueError, match="no device 'mps' here"),
    ):
        resolve_device("mps")


def test_several_ranks_on_mps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="Several ranks need"), DistContext.init("mps"):
        pass
