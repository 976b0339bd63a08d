"""Every user error ends in one sentence and exit code 2, and damages nothing."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from tests.cli.runner import error_output, error_sentence, one_sentence, output, run_gnano
from tests.small_models import with_train

from gnano.cli import COMMANDS
from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.inference_config import EvalConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.config.train_config import TrainConfig
from gnano.train.trainer import train


@pytest.fixture
def file(recipe: Recipe, tmp_path: Path) -> Path:
    """The small recipe as a file, with a copy of the data that a test may damage."""
    content = asdict(with_train(recipe, steps=4, save_every=2))
    content["data"]["folder"] = str(
        shutil.copytree(recipe.pretraining_data.folder, tmp_path / "data")
    )
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def test_a_wrong_recipe_name_shows_the_right_ones(capsys):
    for command in ("prepare", "pretrain"):
        error = error_sentence(capsys, command, "125m")
        assert "did you mean '124m'" in error and "demo" in error


def test_a_missing_recipe_is_reported(capsys):
    assert "Name a recipe" in error_sentence(capsys, "pretrain", "--train.steps", "3")


def test_an_unknown_key_in_a_recipe_is_named(capsys, file):
    file.write_text(file.read_text().replace("grad_clip =", "grad_clipp ="))
    assert "unknown key train.grad_clipp" in error_sentence(capsys, "pretrain", file)


def test_an_unknown_flag_is_named_with_a_suggestion(capsys, file):
    error = error_output(capsys, "pretrain", file, "--train.stepz", "3")
    assert "--train.stepz" in error and "--train.steps" in error


def test_a_value_of_the_wrong_type_is_named(capsys, file):
    assert "--train.steps" in error_output(capsys, "pretrain", file, "--train.steps", "many")
    assert "steps is 0" in error_output(capsys, "pretrain", file, "--train.steps", "0")


def test_indivisible_tokens_per_step_show_the_arithmetic(capsys, file, tmp_path):
    run = tmp_path / "run"
    error = error_output(capsys, "pretrain", file, "--out", run, "--train.tokens-per-step", "1000")
    assert "1,000 / 256 = 3.91" in one_sentence(error) and "768 or 1,024" in error
    assert not run.exists()


def test_an_empty_corpus_is_named(capsys, file, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    error = error_output(
        capsys, "prepare", file, "--data.folder", tmp_path / "new",
        "--data.sources.left.files", empty, "--data.sources.right.files", empty,
    )  # fmt: skip
    assert "no" in one_sentence(error)
    assert not (tmp_path / "new" / "manifest.json").exists()


def test_files_that_do_not_exist_are_named(capsys, file, tmp_path):
    error = error_output(
        capsys, "prepare", file, "--data.folder", tmp_path / "new",
        "--data.sources.left.files", "nowhere/*.parquet",
    )  # fmt: skip
    assert "'nowhere/*.parquet'" in one_sentence(error)


def test_one_flipped_byte_in_a_shard_is_found(capsys, file, tmp_path):
    shard = tmp_path / "data" / "right" / "00000-000.tokens"
    content = bytearray(shard.read_bytes())
    content[1234] ^= 4
    shard.write_bytes(content)
    error = error_sentence(capsys, "pretrain", file, "--out", tmp_path / "run")
    assert "right/00000-000.tokens does not match its checksum" in error and "Delete" in error


def test_prepare_repairs_a_deleted_shard_folder(capsys, file, tmp_path):
    shard = tmp_path / "data" / "right" / "00000-000.tokens"
    before = shard.read_bytes()
    shutil.rmtree(shard.parent)
    output(capsys, "prepare", str(file))
    assert shard.read_bytes() == before


@pytest.mark.slow
def test_a_truncated_checkpoint_is_found(capsys, file, tmp_path, recipe):
    run = tmp_path / "run"
    result = train(with_train(recipe, steps=4, save_every=2), run)
    weights = result.checkpoint / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    assert str(weights) in error_sentence(capsys, "generate", run, "the")
    assert "truncated" in error_sentence(capsys, "info", result.checkpoint)
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    error = error_sentence(capsys, "pretrain", file, "--out", run, "--train.steps", "4")
    assert f"{weights} has" in error and "truncated" in error


@pytest.fixture
def full_disk() -> Iterator[pytest.MonkeyPatch]:
    """Make every atomic write meet a full disk, until `undo`."""

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnano.utils.files.fsync_path", full)
        yield patch


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_same_command_resumes(capsys, file, tmp_path, full_disk):
    run = tmp_path / "run"
    error = error_sentence(capsys, "pretrain", file, "--out", run)
    assert "No space left on device" in error and "same command" in error
    assert str(run / "recipe.toml") in error
    full_disk.undo()
    output(capsys, "pretrain", str(file), "--out", str(run))


def test_a_full_disk_during_prepare_is_reported(capsys, file, tmp_path, full_disk):
    folder = tmp_path / "new"
    error = error_sentence(capsys, "prepare", file, "--data.folder", folder)
    assert "No space left on device" in error and str(folder / "manifest.json") in error


@pytest.mark.slow
def test_missing_permission_names_the_path(file, tmp_path):
    """Run in a process that is bound by permissions: the superuser may write anywhere."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    command = [sys.executable, "-m", "gnano", "pretrain", str(file), "--out", str(locked / "run")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("running as root, and there is no setpriv to give its power up")
        drop = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Permission denied" in one_sentence(done.stderr) and "locked" in done.stderr


def test_an_unknown_command_lists_the_commands(capsys):
    assert "demo, doctor, prepare" in error_sentence(capsys, "pretain")


def test_a_path_that_is_no_checkpoint_is_reported(capsys, tmp_path):
    assert "does not exist" in error_sentence(capsys, "generate", tmp_path / "no", "x")
    assert "no such file or folder" in error_sentence(capsys, "info", tmp_path / "no")
    assert "not a data folder" in error_sentence(capsys, "info", tmp_path)
    assert "no checkpoint" in error_sentence(capsys, "tokenizer", "show", tmp_path, "x")


def test_unprepared_data_names_the_command(capsys, file, tmp_path):
    error = error_output(capsys, "pretrain", file, "--data.folder", tmp_path / "none")
    assert "gnano prepare" in one_sentence(error)


@pytest.mark.parametrize(
    ("command", "device"),
    [
        *(("pretrain", device) for device in ("banana", "cuda:77", "mps:3", "meta", "cpu:1")),
        *((name, "banana") for name in ("sft", "dpo", "generate", "chat", "eval", "bench")),
    ],
)
def test_every_command_names_a_missing_device(file, base, tmp_path, capsys, command, device):
    arguments: dict[str, list[object]] = {
        "pretrain": [file, "--train.device", device, "--out", tmp_path / "run"],
        "sft": ["1b-sft", "--from", base, "--train.device", device, "--out", tmp_path / "run"],
        "dpo": ["1b-dpo", "--from", base, "--train.device", device, "--out", tmp_path / "run"],
        "generate": [base, "a", "--device", device],
        "chat": [base, "--device", device],
        "eval": [base, "--device", device, "--tasks", "none"],
        "bench": [base, "--device", device],
    }
    error = error_sentence(capsys, command, *arguments[command])
    assert f"There is no device '{device}'" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_refused_before_its_first_step_leaves_its_folder_usable(
    file, tmp_path, capsys, monkeypatch
):
    """Test an error that comes late, when the recipe is already in the folder."""
    run = tmp_path / "run"
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    with monkeypatch.context() as patched:
        patched.setattr("gnano.checkpoint.async_writer.shutil.disk_usage", lambda path: full)
        assert "are free in" in error_output(capsys, "pretrain", file, "--out", run)
    assert (run / "recipe.toml").exists()
    mended = ["--model.n-layer", "1", "--train.optimizer.kind", "muon", "--train.seed", "3"]
    for _ in range(2):  # the second one finds it complete
        output(capsys, "pretrain", str(file), "--out", str(run), *mended)
    assert "cannot change" in error_output(capsys, "pretrain", file, "--out", run)


def test_shape_flags_are_refused_with_a_base(file, base, capsys):
    for command, recipe in (("sft", "1b-sft"), ("dpo", "1b-dpo"), ("pretrain", str(file))):
        origin = ["--train.init-from"] if command == "pretrain" else ["--from"]
        error = error_output(capsys, command, recipe, *origin, base, "--model.n-layer", "3")
        assert "--model.n-layer has no effect: the model has the shape of its base." in error


@pytest.mark.slow
def test_a_tilde_expands_in_every_path(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for options in (["--out=~/a"], ["--out", "~/b"], ["--out", "c", "--data.folder", "~/data"]):
        output(capsys, "pretrain", "~/small.toml", *options)
    assert all((tmp_path / name / "checkpoints").is_dir() for name in "abc")
    for arguments in (["info", "~/a"], ["info", "~/small.toml"], ["weights", "~/a", "~/shared"]):
        output(capsys, *arguments)
    assert (tmp_path / "shared").is_dir() and not (tmp_path / "~").exists()
    assert load_recipe("~/a/recipe.toml").train.steps == 4
    paths = InstructionSource(files=("~/x.jsonl",)).files + EvalConfig(files=("~/y.jsonl",)).files
    config = InstructionConfig(template="~/t.toml", cache_dir="~/hub")
    paths += (config.template, config.cache_dir, TrainConfig(init_from="~/base").init_from)
    data = DataConfig(folder="~/d", tokenizer="~/t", decontaminate=("~/e",))
    paths += (
        data.folder,
        data.tokenizer,
        *data.decontaminate,
        SourceConfig(files=("~/f",)).files[0],
    )
    assert all(path.startswith(str(tmp_path)) for path in paths), paths


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_mentions_kept_work_only_for_resumable_commands(command, monkeypatch, capsys):
    def interrupt(argv: list[str]) -> None:
        raise KeyboardInterrupt

    name = "import_" if command == "import" else command
    monkeypatch.setattr(f"gnano.cli.{name}.main", interrupt, raising=False)
    code, _, err = run_gnano(capsys, command)
    assert code == 130 and "Stopped." in err
    resumable = {"demo", "prepare", "pretrain", "sft", "dpo", "compare", "publish"}
    assert ("is kept" in err) == (command in resumable)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("train.schedule.peak", "inf"),
        ("train.grad_clip", "nan"),
        ("model.norm-eps", "-1"),
        ("train.seed", "-1"),
        ("data.heldout_fraction", "1.5"),
        ("train.stability.spike_threshold", "-2"),
    ],
)
def test_a_flag_out_of_range_is_refused(file, tmp_path, capsys, flag, value):
    error = error_output(capsys, "pretrain", file, "--out", tmp_path / "run", f"--{flag}", value)
    text = " ".join(error.replace("│", " ").split())  # tyro wraps it in a box
    assert f"{flag.replace('-', '_')} is {value}" in text and "it must be" in text
    assert not (tmp_path / "run").exists()
