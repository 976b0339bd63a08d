"""Every mistake a person makes ends in one sentence and exit code 2, and harms nothing."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tests.small_models import with_train

from gnano.cli import COMMANDS, main
from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.eval_config import EvalConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.config.train_config import TrainConfig
from gnano.train.trainer import train


@pytest.fixture
def file(recipe: Recipe, tmp_path: Path) -> Path:
    """The small recipe as a file, with data of its own that a test may damage."""
    content = asdict(with_train(recipe, steps=4, save_every=2))
    content["data"]["folder"] = str(
        shutil.copytree(recipe.pretraining_data.folder, tmp_path / "data")
    )
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command prints to stderr; it must leave with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert "Traceback" not in said
    return said


def one_sentence(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("gnano: ")]
    assert len(lines) == 1 and lines[0].endswith("."), said
    return lines[0]


def test_a_wrong_recipe_name_shows_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("prepare", "pretrain"):
        said = one_sentence(refusal(capsys, command, "125m"))
        assert "did you mean '124m'" in said and "demo" in said


def test_a_missing_recipe_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Name a recipe" in one_sentence(refusal(capsys, "pretrain", "--train.steps", "3"))


def test_an_unknown_key_in_a_recipe_is_named(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.write_text(file.read_text().replace("clip =", "clipp ="))
    assert "unknown key train.clipp" in one_sentence(refusal(capsys, "pretrain", file))


def test_an_unknown_flag_is_named_with_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    said = refusal(capsys, "pretrain", file, "--train.stepz", "3")
    assert "--train.stepz" in said and "--train.steps" in said


def test_a_value_of_the_wrong_kind_is_named(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert "--train.steps" in refusal(capsys, "pretrain", file, "--train.steps", "many")
    assert "steps is 0" in refusal(capsys, "pretrain", file, "--train.steps", "0")


def test_tokens_that_do_not_divide_come_with_the_arithmetic(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = refusal(capsys, "pretrain", file, "--out", run, "--train.tokens-per-step", "1000")
    assert "1,000 / 256 = 3.91" in one_sentence(said) and "768 or 1,024" in said
    assert not run.exists()


def test_an_empty_corpus_is_named(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    said = refusal(
        capsys, "prepare", file, "--data.folder", tmp_path / "new",
        "--data.sources.left.files", empty, "--data.sources.right.files", empty,
    )  # fmt: skip
    assert "no" in one_sentence(said)
    assert not (tmp_path / "new" / "manifest.json").exists()


def test_files_that_do_not_exist_are_named(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    said = refusal(
        capsys, "prepare", file, "--data.folder", tmp_path / "new",
        "--data.sources.left.files", "nowhere/*.parquet",
    )  # fmt: skip
    assert "'nowhere/*.parquet'" in one_sentence(said)


def test_one_flipped_byte_in_a_shard_is_found(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    shard = tmp_path / "data" / "right" / "00000-000.tokens"
    content = bytearray(shard.read_bytes())
    content[1234] ^= 4
    shard.write_bytes(content)
    said = one_sentence(refusal(capsys, "pretrain", file, "--out", tmp_path / "run"))
    assert "right/00000-000.tokens does not match its checksum" in said and "Delete" in said


def test_after_deleting_the_damaged_folder_the_same_prepare_mends_it(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    shard = tmp_path / "data" / "right" / "00000-000.tokens"
    before = shard.read_bytes()
    shutil.rmtree(shard.parent)
    with pytest.raises(SystemExit) as left:
        main(["prepare", str(file)])
    assert not left.value.code
    assert shard.read_bytes() == before


def test_a_truncated_checkpoint_is_found(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path, recipe: Recipe
) -> None:
    run = tmp_path / "run"
    result = train(with_train(recipe, steps=4, save_every=2), run)
    weights = result.checkpoint / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    assert str(weights) in one_sentence(refusal(capsys, "generate", run, "the"))
    assert "truncated" in one_sentence(refusal(capsys, "info", result.checkpoint))
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    said = one_sentence(refusal(capsys, "pretrain", file, "--out", run, "--train.steps", "4"))
    assert f"{weights} has" in said and "truncated" in said


@pytest.fixture
def full_disk() -> Iterator[pytest.MonkeyPatch]:
    """Every file that is to appear whole meets a full disk, until `undo`."""

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnano.utils.atomic_io.fsync_path", full)
        yield patch


def test_a_full_disk_is_said_and_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    said = one_sentence(refusal(capsys, "pretrain", file, "--out", run))
    assert "No space left on device" in said and "same command" in said
    assert str(run / "recipe.toml") in said
    full_disk.undo()
    with pytest.raises(SystemExit) as left:
        main(["pretrain", str(file), "--out", str(run)])
    assert not left.value.code


def test_a_full_disk_while_preparing_is_said(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new"
    said = one_sentence(refusal(capsys, "prepare", file, "--data.folder", folder))
    assert "No space left on device" in said and str(folder / "manifest.json") in said


def test_a_place_without_permission_is_named(file: Path, tmp_path: Path) -> None:
    """In a process that has no power over permissions: the superuser may write anywhere."""
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


def test_a_command_that_does_not_exist_shows_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "demo, prepare" in one_sentence(refusal(capsys, "pretain"))


def test_what_is_no_checkpoint_or_folder_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "does not exist" in one_sentence(refusal(capsys, "generate", tmp_path / "no", "x"))
    assert "no such file or folder" in one_sentence(refusal(capsys, "info", tmp_path / "no"))
    assert "not a data folder" in one_sentence(refusal(capsys, "info", tmp_path))
    assert "no checkpoint" in one_sentence(refusal(capsys, "tokenizer", "show", tmp_path, "x"))


def test_unprepared_data_says_how_to_prepare_it(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    said = refusal(capsys, "pretrain", file, "--data.folder", tmp_path / "none")
    assert "gnano prepare" in one_sentence(said)


@pytest.mark.parametrize("device", ["banana", "cuda:77", "mps:3", "meta", "cpu:1"])
@pytest.mark.parametrize("command", ["pretrain", "sft", "dpo", "generate", "chat", "eval", "bench"])
def test_a_device_that_is_not_there_is_named_by_every_command(
    file: Path, base: Path, tmp_path: Path, capsys: Any, command: str, device: str
) -> None:
    arguments: dict[str, list[object]] = {
        "pretrain": [file, "--train.device", device, "--out", tmp_path / "run"],
        "sft": ["1b-sft", "--from", base, "--train.device", device, "--out", tmp_path / "run"],
        "dpo": ["1b-dpo", "--from", base, "--train.device", device, "--out", tmp_path / "run"],
        "generate": [base, "a", "--device", device],
        "chat": [base, "--device", device],
        "eval": [base, "--device", device, "--tasks", "none"],
        "bench": [base, "--device", device],
    }
    said = one_sentence(refusal(capsys, command, *arguments[command]))
    assert f"There is no device '{device}'" in said
    assert not (tmp_path / "run").exists()


def test_a_run_refused_before_its_first_step_does_not_bind_its_folder(
    file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused late, when the recipe has been written into the folder."""
    run = tmp_path / "run"
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    with monkeypatch.context() as patched:
        patched.setattr("gnano.checkpoint.async_writer.shutil.disk_usage", lambda path: full)
        assert "are free in" in refusal(capsys, "pretrain", file, "--out", run)
    assert (run / "recipe.toml").exists()
    mended = ["--model.n-layer", "1", "--train.optimizer.kind", "muon", "--train.seed", "3"]
    for _ in range(2):  # the second one finds it complete
        with pytest.raises(SystemExit) as left:
            main(["pretrain", str(file), "--out", str(run), *mended])
        assert left.value.code == 0, capsys.readouterr().err
    assert "can't be allowed" in refusal(capsys, "pretrain", file, "--out", run)


def test_what_a_base_decides_is_refused_as_a_flag(file: Path, base: Path, capsys: Any) -> None:
    for command, recipe in (("sft", "1b-sft"), ("dpo", "1b-dpo"), ("pretrain", str(file))):
        origin = ["--train.init_from"] if command == "pretrain" else ["--from"]
        said = refusal(capsys, command, recipe, *origin, base, "--model.n-layer", "3")
        assert "--model.n-layer has no effect: the model has the shape of its base." in said


def test_a_home_is_found_in_every_way_to_type_a_path(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for options in (["--out=~/a"], ["--out", "~/b"], ["--out", "c", "--data.folder", "~/data"]):
        with pytest.raises(SystemExit) as left:
            main(["pretrain", "~/small.toml", *options])
        assert left.value.code == 0, capsys.readouterr().err
    assert all((tmp_path / name / "checkpoints").is_dir() for name in "abc")
    for arguments in (["info", "~/a"], ["info", "~/small.toml"], ["weights", "~/a", "~/shared"]):
        main_ends_well(arguments)
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


def main_ends_well(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as left:
        assert not left.code, arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_after_ctrl_c_it_says_that_work_is_kept_only_where_it_is(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def interrupted(argv: list[str]) -> None:
        raise KeyboardInterrupt

    name = "import_" if command == "import" else command
    monkeypatch.setattr(f"gnano.cli.{name}.main", interrupted, raising=False)
    with pytest.raises(SystemExit) as left:
        main([command])
    assert left.value.code == 130
    said = capsys.readouterr().err
    assert "Stopped." in said
    keeps = {"demo", "prepare", "pretrain", "sft", "dpo", "compare", "publish"}
    assert ("is kept" in said) == (command in keeps)


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
def test_a_number_outside_its_range_is_refused_at_the_command_line(
    file: Path, tmp_path: Path, capsys: Any, flag: str, value: str
) -> None:
    said = refusal(capsys, "pretrain", file, "--out", tmp_path / "run", f"--{flag}", value)
    assert f"{flag.replace('-', '_')} is {value}" in said and "it must be" in said
    assert not (tmp_path / "run").exists()
