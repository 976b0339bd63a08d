"""Each command does what its help states."""

import json
import subprocess
import sys

import pytest
from tests.cli.runner import output, run_gnano

from gnano.cli import COMMANDS


def test_help_names_every_command_and_loads_nothing_heavy():
    program = (
        "import sys; from gnano.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in ('torch', 'numpy', 'tyro', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("[]\n")
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(capsys, command):
    text = output(capsys, command, "--help")
    assert "example" in text and f"gnano {command} " in text


def test_recipe_help_shows_the_values_of_the_recipe(capsys):
    text = output(capsys, "pretrain", "1b", "--help")
    assert "--train.steps" in text and "50000" in text and "optimizer steps of the run" in text


def test_generate_gives_the_same_text_for_the_same_seed(capsys, run):
    texts = {
        seed: output(capsys, "generate", run, "the river", "-n", 12, "--seed", seed)
        for seed in (1, 2)
    }
    assert texts[1] == output(capsys, "generate", run, "the river", "-n", 12, "--seed", 1)
    assert texts[1] != texts[2]
    assert texts[1].startswith("the river")


def test_info_describes_recipes_data_runs_and_checkpoints(capsys, run, recipe):
    assert "1,050,002,688" in output(capsys, "info", "1b")
    assert "bpe-300" in output(capsys, "info", recipe.pretraining_data.folder)
    text = output(capsys, "info", run)
    assert "finished: step 4 of 4" in text and "bits per byte" in text
    checkpoint = run / "checkpoints" / "step-00000004"
    assert "Every file is there and has its size" in output(capsys, "info", checkpoint)


def test_info_verifies_a_checkpoint_or_all_of_a_run(capsys, run, tmp_path):
    text = output(capsys, "info", run, "--verify")
    assert text.count(": intact\n") == len(list((run / "checkpoints").iterdir())) > 1
    checkpoint = run / "checkpoints" / "step-00000004"
    assert f"{checkpoint}: intact" in output(capsys, "info", checkpoint, "--verify")


def test_runs_prints_a_table_or_json(capsys, run):
    assert "run  finished   4/4  100%" in output(capsys, "runs", run.parent)
    found = json.loads(output(capsys, "runs", run.parent, "--json"))
    assert (found["name"], found["state"], found["step"]) == ("run", "finished", 4)
    assert found["checkpoint"].endswith("step-00000004")


def test_generate_opens_the_folder_that_weights_makes(capsys, run, tmp_path):
    assert "6 files" in output(capsys, "weights", run, tmp_path / "shared")
    arguments = ("the river", "-n", 12, "--seed", 1)
    assert output(capsys, "generate", tmp_path / "shared", *arguments) == output(
        capsys, "generate", run, *arguments
    )


def test_a_trained_tokenizer_round_trips_text(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("the quick brown fox and the lazy dog " * 50)
    files = ("--files", tmp_path / "*.txt", "--vocab-size", 280, "--out", tmp_path / "tok")
    assert "280 entries" in output(capsys, "tokenizer", "train", *files)
    lines = output(capsys, "tokenizer", "show", tmp_path / "tok", "the brown dog")
    pieces = [line.split(maxsplit=1)[1] for line in lines.splitlines()]
    assert b"".join(map(eval, pieces)) == b"the brown dog"
    assert len(pieces) < len("the brown dog")


def test_ctrl_c_exits_with_130_and_one_line(capsys, monkeypatch):
    def interrupt(target: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("gnano.reporting.description.describe", interrupt)
    code, _, err = run_gnano(capsys, "info", "1b")
    assert code == 130 and err.strip().startswith("Stopped.")
