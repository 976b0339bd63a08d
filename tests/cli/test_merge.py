"""gnano merge makes one model of two folders, and a mistake is a sentence that leaves nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.small_models import with_train

from gnano.checkpoint.format import find_checkpoint
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.model.hf_io import load_model
from gnano.model.lora import add_lora
from gnano.model.peft_io import save_adapter
from gnano.train.trainer import train

CONFIG = LoraConfig(rank=2)


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=2, save_every=2), folder)
    return folder


@pytest.fixture
def adapter(run: Path, tmp_path: Path) -> Path:
    model = load_model(find_checkpoint(run))
    torch.manual_seed(1)
    add_lora(model, CONFIG)
    save_adapter(dict(model.named_parameters()), CONFIG, str(run), tmp_path / "adapter")
    return tmp_path / "adapter"


def gnano(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gnano", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(out: Path, *arguments: object) -> str:
    done = gnano("merge", *arguments, out)
    said = done.stderr.splitlines()
    assert done.returncode == 2 and len(said) == 1 and said[0].startswith("gnano: "), done.stderr
    assert said[0].endswith(".") and not out.exists()
    assert not list(out.parent.glob(".*.partial"))
    return said[0]


def test_the_folder_it_prints_can_be_looked_at_and_continues_text(
    run: Path, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    done = gnano("merge", run, adapter, out)
    assert done.returncode == 0 and done.stdout.startswith(f"{out}: 6 files, "), done.stderr
    assert "Every file is there" in gnano("info", out).stdout
    assert gnano("generate", out, "the river", "-n", 4).stdout.startswith("the river")


def test_what_is_no_base_or_no_adapter_is_named(run: Path, adapter: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert f"{tmp_path / 'no'}" in refused(out, tmp_path / "no", adapter)
    assert f"{empty} holds no checkpoint" in refused(out, empty, adapter)
    assert f"{tmp_path / 'no'} is no adapter" in refused(out, run, tmp_path / "no")
    assert f"{empty} is no adapter" in refused(out, run, empty)
    # its weights are all tuned, so there is no adapter to take
    assert f"{run} is no adapter" in refused(out, run, run)


def test_a_damaged_adapter_is_named(run: Path, adapter: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert f"{weights} is damaged or cut short" in refused(tmp_path / "out", run, adapter)
    weights.unlink()
    assert "adapter_model.safetensors" in refused(tmp_path / "out", run, adapter)


def test_an_adapter_of_another_kind_or_shape_is_refused(
    run: Path, adapter: Path, tmp_path: Path
) -> None:
    config = adapter / "adapter_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "use_dora": True}))
    assert "use_dora" in refused(tmp_path / "out", run, adapter)
    config.write_text(json.dumps({**content, "r": 3}))
    assert "r = 3" in refused(tmp_path / "out", run, adapter)


def test_no_folder_is_written_over(run: Path, adapter: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(adapter, tmp_path / "there"))
    done = gnano("merge", run, adapter, there)
    assert done.returncode == 2 and "is there already" in done.stderr
    assert {p.name for p in there.iterdir()} == {p.name for p in adapter.iterdir()}


def test_three_folders_are_asked_for(run: Path) -> None:
    assert gnano("merge", run).returncode == 2
