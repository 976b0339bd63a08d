"""LoRA training: only the adapter is trained and saved, and other libraries load the result."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.processes import fingerprint
from tests.small_models import with_train
from transformers import AutoModelForCausalLM

from gnano.checkpoint.format import read_checkpoint
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.model.hf_io import load_config, load_model
from gnano.train.trainer import RunResult, train

LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def adapted(sft_recipe: Recipe) -> Recipe:
    return with_train(sft_recipe, lora=LORA, schedule=replace(sft_recipe.train.schedule, peak=2e-2))


@pytest.fixture(scope="module")
def tuned(adapted: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(adapted, tmp_path_factory.mktemp("adapter") / "run")


def logits(model: torch.nn.Module, vocab_size: int = 300) -> torch.Tensor:
    ids = torch.randint(0, vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def test_merged_checkpoint_matches_peft(tuned: RunResult, base: Path) -> None:
    merged = AutoModelForCausalLM.from_pretrained(tuned.checkpoint, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = logits(plain)
    adapted = PeftModel.from_pretrained(plain, tuned.checkpoint / "adapter")
    assert (logits(merged) - before).abs().max() > 0.05, "the adapter did not change"
    torch.testing.assert_close(logits(adapted), logits(merged), rtol=1e-4, atol=1e-4)


def test_only_matrices_with_an_adapter_change(tuned: RunResult, base: Path) -> None:
    ours = dict(load_model(tuned.checkpoint).named_parameters())
    for name, parameter in load_model(base).named_parameters():
        assert torch.equal(ours[name], parameter) == ("_proj" not in name), name


def test_optimizer_has_moments_of_the_adapter_only(tuned: RunResult) -> None:
    training = read_checkpoint(tuned.checkpoint, load_config(tuned.checkpoint)).training_tensors
    moments = {name.rpartition("/")[0] for name in training if name.endswith("/exp_avg")}
    assert moments and all("lora_" in name for name in moments)
    assert {f"lora/{name}" for name in moments} < set(training)


@pytest.mark.slow
def test_resume_is_bit_identical(adapted: Recipe, tuned: RunResult, tmp_path: Path) -> None:
    def stop(row: dict[str, object]) -> None:
        if row["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    assert train(adapted, tmp_path / "run", stop).step == 5
    result = train(adapted, tmp_path / "run")
    assert result.start_step == 5 and fingerprint(result.run) == fingerprint(tuned.run)


def test_rank_cannot_change_and_base_is_required(
    adapted: Recipe, base: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    mine = with_train(adapted, init_from=str(copy), steps=2)
    mine = replace(mine, data=replace(mine.tuning_data, epochs=0))
    train(mine, tmp_path / "run")
    other = with_train(mine, lora=replace(LORA, rank=8))
    with pytest.raises(ValueError, match=r"train\.lora\.rank cannot change"):
        train(other, tmp_path / "run", allowed=["train.lora"])
    shutil.rmtree(copy)
    with pytest.raises(ValueError, match="is missing, and the run cannot resume"):
        train(mine, tmp_path / "run")


def test_unsupported_adapter_settings_are_refused(adapted: Recipe) -> None:
    with pytest.raises(ValueError, match="trains an adapter"):
        with_train(adapted, optimizer=replace(adapted.train.optimizer, kind="muon"))
    with pytest.raises(ValueError, match="trains an adapter"):
        with_train(adapted, precision="fp8")
