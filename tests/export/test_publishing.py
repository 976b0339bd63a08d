"""A publication is the model, byte for byte, atomic, and never accidental."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants as constants
import pytest
from tests.data.hf_hub.faults import status
from tests.data.hf_hub.hub_server import HIDDEN, point_client_to
from tests.export.fake_hub import Model, ModelHub
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import verify_checksums
from gnano.cli import main
from gnano.train.trainer import train

TOKEN, REPO = "hf_mine", "me/small"


@pytest.fixture
def hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[ModelHub]:
    """A Hub that the client in this process talks to, with our token."""
    with ModelHub(users={TOKEN: "me", "hf_other": "other"}) as hub:
        point_client_to(hub, monkeypatch, tmp_path / "home")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield hub


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A model folder that a test may change, with private files in it."""
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    (folder / "notes.txt").write_text("private")
    (folder / ".env").write_text("SECRET=1")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")  # no texts to write
    return folder


def publish(*arguments: object) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["publish", *map(str, arguments)])
    assert not exit_info.value.code, exit_info.value.code


def error_sentence(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(["publish", *map(str, arguments)])
    message = capsys.readouterr().err
    assert exit_info.value.code == 2, message
    assert TOKEN not in message and "Traceback" not in message
    assert message.startswith("gnano: ") and message.count("\n") == 1, message
    return message


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def at_the_hub(hub: ModelHub) -> dict[str, bytes]:
    return {n: c for n, c in hub.models[REPO].files.items() if n != ".gitattributes"}


def test_only_the_model_is_uploaded(hub, model, tmp_path, capsys):
    publish(model, REPO)
    expected = contents(model)
    del expected["notes.txt"], expected[".env"]
    assert at_the_hub(hub) == expected == contents(tmp_path / "published/small")
    assert hub.models[REPO].commits == ["Publish the model"]
    assert not hub.models[REPO].private
    assert capsys.readouterr().out.endswith(f"{hub.endpoint}/{REPO}\n")


def test_a_run_publishes_its_newest_checkpoint_without_trainer_state(hub, recipe, tmp_path):
    run = train(with_train(recipe, steps=4, save_every=2), tmp_path / "run").run
    publish(run, REPO, "--prompts", "the")
    names = {p.name for p in (run / "checkpoints/step-00000004").iterdir() if p.is_file()}
    assert at_the_hub(hub).keys() == names | {"README.md"}
    weights = (run / "checkpoints/step-00000004/model.safetensors").read_bytes()
    assert at_the_hub(hub)["model.safetensors"] == weights
    verify_checksums(tmp_path / "published/small")


def test_included_files_are_uploaded(hub, model, tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(b"graph")
    (tmp_path / "onnx/.env").write_text("SECRET=1")
    publish(model, REPO, "--private", "--include", tmp_path / "small.gguf", tmp_path / "onnx")
    assert at_the_hub(hub)["small.gguf"] == b"GGUF"
    assert at_the_hub(hub)["onnx/model.onnx"] == b"graph"
    assert "onnx/.env" not in at_the_hub(hub)
    assert hub.models[REPO].private


def test_a_dry_run_writes_the_folder_without_requests(hub, model, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    publish(model, REPO, "--dry-run", "--out", tmp_path / "review")
    message = capsys.readouterr().out
    size = (model / "model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors\n" in message and "Nothing was sent." in message
    assert f"{sum(map(len, contents(tmp_path / 'review').values())):,}  bytes in" in message
    assert not hub.requests


def test_an_edited_card_is_uploaded(hub, model, tmp_path):
    (model / "README.md").unlink()
    publish(model, REPO, "--dry-run", "--license", "mit", "--prompts", "the")
    card = tmp_path / "published/small/README.md"
    card.write_text(card.read_text() + "\nMore.\n")
    (card.parent / ".cache").mkdir()
    (card.parent / ".cache/key").write_text("SECRET=1")
    publish(model, REPO)
    assert at_the_hub(hub)["README.md"] == card.read_bytes()
    assert ".cache/key" not in at_the_hub(hub)


def test_the_commit_is_atomic_and_uploads_are_reused(hub, model, tmp_path, monkeypatch, capsys):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    command = (model, REPO, "--include", tmp_path / "small.gguf")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.faults["/storage/"] = [status(503)]  # a passing one is tried again
    hub.faults["/commit/"] = [status(500)] * 9
    assert "failed with 500" in error_sentence(capsys, *command)
    assert not at_the_hub(hub) and len(hub.stored) == 2
    hub.faults.clear()
    publish(*command)
    assert at_the_hub(hub) == contents(tmp_path / "published/small")
    assert len(hub.stored) == 2, "what had arrived was sent again"
    publish(*command)
    assert len(hub.models[REPO].commits) == 1, "a run without changes has made a commit"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_upload_resumes(hub, model, tmp_path, how):
    weights = (model / "model.safetensors").read_bytes()
    (tmp_path / "early.gguf").write_bytes(b"GGUF" * 100)
    command = [sys.executable, "-m", "gnano", "publish", model, REPO]
    command += ["--include", tmp_path / "early.gguf"]
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    hub.hold = weights[1000:1100]
    started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert hub.held.wait(60)
    started.send_signal(how)
    message = started.communicate(timeout=60)[1]
    if how == signal.SIGINT:
        assert started.returncode == 130 and "the same command resumes" in message, message
    hub.hold = b""
    assert not at_the_hub(hub)
    publish(*command[4:])
    assert at_the_hub(hub) == contents(tmp_path / "published/small")
    assert len(hub.stored) == 2, "what had arrived was sent again"


def test_other_files_are_replaced_only_with_update(hub, model, tmp_path, capsys):
    hub.models[REPO] = Model(files={"config.json": b"{}", "theirs.bin": b"1"})
    message = error_sentence(capsys, model, REPO)
    assert "holds other files (config.json and 1 more)" in message and "--update" in message
    assert hub.models[REPO].files["config.json"] == b"{}"
    publish(model, REPO, "--update")
    assert hub.models[REPO].files["config.json"] == (model / "config.json").read_bytes()
    assert hub.models[REPO].files["theirs.bin"] == b"1"


def test_private_refuses_a_public_repository(hub, model, capsys):
    hub.models[REPO] = Model()
    assert "is public" in error_sentence(capsys, model, REPO, "--private")
    assert not at_the_hub(hub)


def test_a_changed_file_in_the_folder_is_named(hub, model, capsys):
    publish(model, REPO, "--dry-run")
    (model / "generation_config.json").write_text("{}")
    assert "generation_config.json exists and differs from" in error_sentence(capsys, model, REPO)


def test_a_folder_with_other_files_is_refused(hub, model, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear")
    message = error_sentence(capsys, model, REPO, "--out", tmp_path / "mine")
    assert "mine holds diary.txt, which is not to be published" in message
    assert contents(tmp_path / "mine") == {"diary.txt": b"dear"}


def test_the_stored_login_is_used(hub, model, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).parent.mkdir()
    Path(constants.HF_TOKEN_PATH).write_text(f"{TOKEN}\n")
    publish(model, REPO)
    assert at_the_hub(hub)


@pytest.mark.parametrize("name", ["small", "me/", "a/b/c", "me/sm all", "me/a--b", "-me/a", "me/é"])
def test_invalid_repository_names_are_refused(hub, model, capsys, name):
    argument = [model, "--", name] if name.startswith("-") else [model, name]
    assert f"{name!r} is not the name of a repository" in error_sentence(capsys, *argument)
    assert not hub.requests


MISTAKES: dict[str, Any] = {
    "no token": (None, REPO, "needs a token"),
    "a bad one": ("hf_forged", REPO, "does not accept the token (401"),
    "a broken one": ("hf_\nü", REPO, "holds an invalid character"),
    "of someone else": ("hf_other", REPO, "of other may not write to me/small (403"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_unusable_tokens_are_reported_first(hub, model, monkeypatch, capsys, what):
    token, repo, expected = MISTAKES[what]
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    message = error_sentence(capsys, model, repo)
    assert expected in message and (not token or token not in message)
    assert not hub.stored


def test_a_rejected_card_is_reported_before_the_upload(hub, model, capsys):
    (model / "README.md").write_text("---\nlicense: not-a-license\n---\n")
    message = error_sentence(capsys, model, REPO)
    assert "README.md" in message and '"license" must be one of' in message
    assert not hub.models and not hub.stored


def test_a_file_that_is_too_large_is_named(hub, model, tmp_path, capsys):
    with (tmp_path / "huge.gguf").open("wb") as file:
        file.truncate(50_000_000_001)
    message = error_sentence(capsys, model, REPO, "--include", tmp_path / "huge.gguf")
    assert "huge.gguf has 50.0 GB, and the Hub accepts at most 50" in message


def test_a_missing_network_is_reported(hub, model, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = error_sentence(capsys, model, REPO)
    assert "The Hub at http://127.0.0.1:9 could not be reached" in message


def test_a_damaged_model_is_not_published(hub, model, capsys):
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "model.safetensors" in error_sentence(capsys, model, REPO)
    assert not hub.models
