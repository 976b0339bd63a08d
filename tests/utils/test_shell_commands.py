"""Commands that are shown to the user can be copied into a shell."""

import ast
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small_models import with_train

from gnano.cli.demo import main as demo
from gnano.config.recipe import Recipe
from gnano.export.formats import _load_snippet
from gnano.export.model_card import build_model_card
from gnano.export.tensor_file import load_export_source
from gnano.reporting.run_status import format_runs_table, list_runs
from gnano.train.trainer import RunResult, train
from gnano.utils.formatting import format_shell_command

SPECIAL_NAMES = ["a b", "it's", 'say "no"', "-rf", "$HOME", "a;b", "a`b`", "*", "ä", "a\\b", "~x"]
names = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1)


@given(st.lists(names))
def test_a_shell_splits_a_command_into_its_words(words: list[str]) -> None:
    assert shlex.split(format_shell_command("gnano", *words)) == ["gnano", *words]


@given(names)
def test_a_path_is_not_taken_for_an_option(name: str) -> None:
    _, _, word = shlex.split(format_shell_command("gnano", "info", Path(name)))
    assert Path(word) == Path(name) and not word.startswith("-")


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(with_train(recipe, steps=2, save_every=2), tmp_path_factory.mktemp("shell") / "r")


@pytest.mark.parametrize("name", SPECIAL_NAMES)
def test_every_shown_command_quotes_its_words(
    name: str,
    trained: RunResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(name)

    monkeypatch.setattr("gnano.demo.demo_run.run_demo", lambda *_: trained)
    demo(["--out=" + name])
    lines = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines() if "  " in line]
    generate, chat, serve, info = (shlex.split(line) for line in lines[:4])
    assert Path(generate[2]) == folder and generate[3:] == [
        "The function returns",
        "--tokens",
        "200",
    ]
    assert Path(chat[2]) == Path(f"{name}-sft") and Path(info[2]) == folder
    assert [Path(word) for word in serve[2:]] == [Path(f"{name}-sft"), folder]

    folder.mkdir()
    table = format_runs_table(folder, list_runs(folder)).removesuffix(" begins one.")
    assert Path(shlex.split(table.partition("holds no run: ")[2])[4]) == folder / "NAME"

    source = load_export_source(trained.checkpoint)
    assert Path(shlex.split(_load_snippet(source, "gguf", folder))[2]) == folder
    for kind in ("pt", "safetensors", "folder", "onnx"):
        line = _load_snippet(source, kind, folder).replace("GPT(…)", "GPT()")
        nodes = ast.walk(ast.parse(line))
        strings = [node.value for node in nodes if isinstance(node, ast.Constant)]
        assert str(folder / "model.onnx" if kind == "onnx" else folder) in strings

    text = build_model_card(trained.checkpoint, "me/small", [f"{name}.gguf"], prompts=["the"])
    [command] = [line for line in text.splitlines() if line.startswith("llama-cli")]
    assert shlex.split(command)[4] == f"{name}.gguf"
