"""`gnano merge` merges an adapter into its base; an error is one sentence and leaves no files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.runner import error_sentence, output, run_gnano

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.model_config import LoraConfig
from gnano.model.hf_io import load_model
from gnano.model.lora import add_lora, save_adapter

CONFIG = LoraConfig(rank=2)


@pytest.fixture
def adapter(run: Path, tmp_path: Path) -> Path:
    model = load_model(find_checkpoint(run))
    torch.manual_seed(1)
    add_lora(model, CONFIG)
    save_adapter(dict(model.named_parameters()), CONFIG, str(run), tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def merge_error(capsys, tmp_path: Path) -> Callable[..., str]:
    """Return the sentence of a merge that must fail."""

    def merge(*arguments: object) -> str:
        sentence = error_sentence(capsys, "merge", *arguments, tmp_path / "out")
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*.partial"))
        return sentence

    return merge


def test_the_merged_folder_is_described_and_generates(capsys, run, adapter, tmp_path):
    out = tmp_path / "merged"
    assert output(capsys, "merge", run, adapter, out).startswith(f"{out}: 6 files, ")
    assert "Every file is there" in output(capsys, "info", out)
    assert output(capsys, "generate", out, "the river", "-n", 4).startswith("the river")


def test_a_path_that_is_no_base_or_adapter_is_named(merge_error, run, adapter, tmp_path):
    (empty := tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'no'}" in merge_error(tmp_path / "no", adapter)
    assert f"{empty} holds no checkpoint" in merge_error(empty, adapter)
    assert str(tmp_path / "no") in merge_error(run, tmp_path / "no")
    assert str(empty) in merge_error(run, empty)
    # all its weights are trained, so there is no adapter
    assert str(run) in merge_error(run, run)


def test_a_damaged_adapter_is_named(merge_error, run, adapter):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert f"{weights} is damaged" in merge_error(run, adapter)
    weights.unlink()
    assert "adapter_model.safetensors" in merge_error(run, adapter)


def test_an_adapter_of_another_kind_or_shape_is_refused(merge_error, run, adapter):
    config = adapter / "adapter_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "use_dora": True}))
    assert "use_dora" in merge_error(run, adapter)
    config.write_text(json.dumps({**content, "r": 3}))
    assert "r = 3" in merge_error(run, adapter)


def test_an_existing_folder_is_not_overwritten(capsys, run, adapter, tmp_path):
    existing = Path(shutil.copytree(adapter, tmp_path / "existing"))
    assert str(existing) in error_sentence(capsys, "merge", run, adapter, existing)
    assert {p.name for p in existing.iterdir()} == {p.name for p in adapter.iterdir()}


def test_a_missing_argument_exits_with_2(capsys, run):
    assert run_gnano(capsys, "merge", run)[0] == 2
