"""`gnano plan` prints text or JSON without importing torch."""

import json
import subprocess
import sys

import pytest
from tests.cli.runner import error_sentence, output


def test_plan_does_not_import_torch():
    program = (
        "import sys; from gnano.cli import main\n"
        "try: main(['plan', '1b', '--gpu', 'h200', '--gpus', '2', '--price', '3.5'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1,050,002,688" in done.stdout and done.stdout.endswith("False\n")


def test_values_of_the_recipe_can_be_changed(capsys):
    plain = output(capsys, "plan", "1b", "--gpu", "h200")
    less = output(capsys, "plan", "1b", "--gpu", "h200", "--train.micro-batch-size", "1")
    assert "1 × 1,024 × 256 micro-batches" in less and plain != less


def test_json_holds_the_same_figures(capsys):
    text = output(capsys, "plan", "1b", "--gpu", "h200", "--gpus", "2", "--price", "3.5", "--json")
    found = json.loads(text)
    assert found["parameters"]["all"] == 1_050_002_688
    chosen = found["chosen"]
    assert chosen["gpu"]["name"] == "h200" and chosen["fits"]
    assert chosen["memory_bytes"]["needed"] == sum(chosen["memory_bytes"]["parts"].values())
    assert len(found["table"]) > 10 and found["tokens_per_parameter"] == pytest.approx(
        12.48, abs=0.01
    )
    assert chosen["dollars"] == pytest.approx(chosen["hours"] * 2 * 3.5)


def test_a_model_that_does_not_fit_is_a_warning(capsys):
    text = output(capsys, "plan", "1b", "--gpu", "rtx-4090")
    assert "WARNING" in text and "will not fit rtx-4090" in text and "It fits with --" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("1b", "--gpu", "4090"), "did you mean 'rtx-4090'"),
        (("1b", "--gpus", "0"), "gpus is 0"),
        (("1b", "--gpus", "3"), "262,144 / 98,304 = 2.67"),
        (("2b",), "No recipe is called '2b'"),
        ((), "Name a recipe"),
    ],
)
def test_errors_are_one_sentence_with_exit_code_2(capsys, arguments, sentence):
    assert sentence in error_sentence(capsys, "plan", *arguments)
