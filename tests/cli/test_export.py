"""`gnano export` and `gnano import` print what they made, or one sentence."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.runner import error_sentence, output


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_exported_model_imports_and_generates_the_same(capsys, run, workdir):
    out = output(capsys, "export", run, "--to", "safetensors", "--dtype", "fp32")
    path = "exported/run/run-fp32.safetensors"
    assert out.startswith(f"{path}: 0.") and f'load_file("{path}")' in out
    tokenizer = next((run / "checkpoints").iterdir())
    assert output(capsys, "import", path, "--out", "back", "--tokenizer", tokenizer).startswith(
        "back: "
    )
    assert "Every file is there" in output(capsys, "info", "back")
    arguments = ("the river", "-n", 8, "--temperature", 0)
    texts = [output(capsys, "generate", model, *arguments) for model in (run, "back")]
    assert texts[0] == texts[1] and texts[0].startswith("the river")


def test_errors_are_one_sentence_and_leave_no_files(capsys, run, workdir):
    Path("empty.pt").touch()
    Path("folder").mkdir()
    for arguments, message in (
        (("export", run, "--to", "gguf", "--dtype", "int4"), "gguf is written as bf16"),
        (("export", "nowhere", "--to", "pt"), "nowhere"),
        (("export", "folder", "--to", "pt"), "holds no checkpoint"),
        (("import", "empty.pt", "--out", "out"), "empty.pt"),
        (("import", "nowhere", "--out", "out"), "nothing at nowhere"),
        (("import", "folder", "--out", "out"), "has no config.json"),
    ):
        assert message in error_sentence(capsys, *arguments)
    assert sorted(file.name for file in workdir.iterdir()) == ["empty.pt", "folder"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Keep files from growing beyond 20 kB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("to", ["pt", "safetensors", "folder", "gguf"])
def test_a_full_disk_is_reported_and_leaves_no_files(capsys, to, run, workdir, full_disk):
    assert "out" in error_sentence(capsys, "export", run, "--to", to, "--out", "out")
    assert not list(workdir.iterdir())
