"""gnano export and gnano import print what they made, and a mistake is a sentence."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=2, save_every=2), folder)
    return folder


def gnano(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gnano", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_an_exported_model_imports_and_generates_the_same(run: Path, tmp_path: Path) -> None:
    done = gnano(tmp_path, "export", run, "--to", "safetensors", "--dtype", "fp32")
    made = "exported/run/run-fp32.safetensors"
    assert done.returncode == 0 and done.stdout.startswith(f"{made}: 0."), done.stderr
    assert f'load_file("{made}")' in done.stdout
    words = next((run / "checkpoints").iterdir())
    done = gnano(tmp_path, "import", made, "--out", "back", "--tokenizer", words)
    assert done.returncode == 0 and done.stdout.startswith("back: "), done.stderr
    assert "Every file is there" in gnano(tmp_path, "info", "back").stdout
    asked = ("the river", "-n", 8, "--temperature", 0)
    said = [gnano(tmp_path, "generate", model, *asked).stdout for model in (run, "back")]
    assert said[0] == said[1] and said[0].startswith("the river")


def test_errors_are_one_sentence_and_leave_no_files(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "folder").mkdir()
    for arguments, said in (
        (("export", run, "--to", "gguf", "--dtype", "int4"), "gguf is written as bf16"),
        (("export", "nowhere", "--to", "pt"), "the folder does not exist"),
        (("export", "folder", "--to", "pt"), "holds no checkpoint"),
        (("import", "empty.pt", "--out", "out"), "empty.pt"),
        (("import", "nowhere", "--out", "out"), "nothing at nowhere"),
        (("import", "folder", "--out", "out"), "has no config.json"),
    ):
        done = gnano(tmp_path, *arguments)
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 1 and said in lines[0], done.stderr
        assert lines[0].endswith(".")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty.pt", "folder"]


@pytest.mark.parametrize("to", ["pt", "safetensors", "folder", "gguf"])
def test_a_full_disk_is_reported_and_leaves_no_files(to: str, run: Path, tmp_path: Path) -> None:
    def no_room() -> None:  # no file may become larger, as on a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "gnano", "export", str(run), "--to", to, "--out", "out"],
        capture_output=True, text=True, check=False, cwd=tmp_path, preexec_fn=no_room,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("gnano: ")
    assert "out" in lines[0] and not list(tmp_path.iterdir())
