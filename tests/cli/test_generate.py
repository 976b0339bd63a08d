"""`gnano generate`, as a program: prompts from anywhere, texts for people and for programs."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.test_commands import output
from tests.cli.test_mistakes import one_sentence, refusal
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(with_train(recipe, steps=4, save_every=4), folder)
    return folder


@pytest.fixture
def said(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What it prints for these arguments and this standard input."""

    def generate(*arguments: object, given: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        return output(capsys, "generate", run, *arguments)

    return generate


def test_a_prompt_may_come_from_anywhere(said: Callable[..., str], tmp_path: Path) -> None:
    options = "-n", 8, "--seed", 1
    expected = said("the river\nflows", *options)
    assert expected.startswith("the river\nflows")
    file = tmp_path / "prompt.txt"
    file.write_text("the river\nflows\n")
    assert said("--file", file, *options) == expected
    assert said(*options, given="the river\nflows\n") == expected
    assert said("--file", "-", *options, given="the river\nflows\n") == expected


def test_lines_end_where_a_file_s_lines_end(said: Callable[..., str], tmp_path: Path) -> None:
    """Form feed, U+0085 and U+2028 end no line; a byte order mark and CR are no text."""
    lines = ["It was\fone page", "the\u2028end", "a\x85b", "last"]
    content = "\ufeff" + "\r\n".join([*lines[:2], "", " ", *lines[2:]])
    file = tmp_path / "prompts.txt"
    file.write_text(content, "utf-8", newline="")
    options = "--lines", "--json", "-n", 2
    for found in said("--file", file, *options), said(*options, given=file.read_text("utf-8-sig")):
        assert [one["prompt"] for one in json.loads(found)["completions"]] == lines


def test_many_texts_are_written_side_by_side_and_are_those_of_each_alone(
    said: Callable[..., str],
) -> None:
    options = "-n", 8, "--seed", 1
    both = said("the river", "a tree", *options)
    for number, prompt in enumerate(("the river", "a tree"), 1):
        alone = said(prompt, *options)
        assert f"── {number} of 2 ─" in both and alone in both
    samples = said("the river", "--samples", 3, *options)
    assert samples.count("the river") >= 3 and said("the river", *options) in samples


def test_a_program_gets_ids_reasons_log_probabilities_and_speeds(
    said: Callable[..., str],
) -> None:
    options = "-n", 6, "--temperature", 0, "--json", "--log-probs", 2
    found = json.loads(said("--lines", *options, given="the river\n\na tree\n"))
    assert [one["prompt"] for one in found["completions"]] == ["the river", "a tree"]
    assert found["seconds"] > 0 and found["tokens_per_s"] > 0
    assert found["tokens"] == sum(len(one["ids"]) for one in found["completions"])
    for one in found["completions"]:
        assert one["reason"] in ("length", "stop") and one["prompt_tokens"] >= 2
        assert len(one["log_probs"]) == len(one["ids"])
        for told in one["log_probs"]:
            assert len(told["top"]) == 2
            # greedy: what was said is the likeliest
            assert told["top"][0] == [told["token"], told["logprob"]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "There is no prompt in standard input: it has no line with text."),
        (["--lines"], "There is no prompt in standard input: it has no line with text."),
        (["x", "--file", "y"], "Prompts come as arguments or from a file, not both"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
        (["x", "-n", "-5"], "tokens is -5; it must be at least 0 and at most 2,147,483,647."),
        (["--file", sys.executable], "is not UTF-8 text"),
        (["x", "--no-repeat-ngram", "9" * 20], "it must be at least 0 and at most 2,147,483,647."),
        (["x", "--repetition-penalty", "1e-45"], "it must be at least 0.01 and at most 100."),
        (["x", "--seed", "-1"], "seed is -1; it must be at least 0"),
        (["x", "--samples", "0"], "samples is 0; it must be at least 1."),
        (["x", "--log-probs", "1"], "are told with --json"),
        (["x", "--min-p", "2"], "min_p is 2.0; it must be at least 0 and at most 1."),
        (["word " * 500], "tokens and leaves no room in the model's context"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    run: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert reason in one_sentence(refusal(capsys, "generate", run, *arguments))


def test_a_prompt_that_is_refused_is_not_written_like_a_text(run: Path) -> None:
    command = [sys.executable, "-m", "gnano", "generate", str(run), "word " * 500]
    left = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert left.returncode == 2 and left.stdout == ""


def test_a_reader_that_has_seen_enough_ends_it_quietly(run: Path) -> None:
    command = [sys.executable, "-m", "gnano", "generate", str(run), "--file", "-", "--lines"]
    process = subprocess.Popen(
        [*command, "-n", "4", "--samples", "20"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write("the river\n" * 40)
    process.stdin.close()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=120) == 141
    assert "Traceback" not in errors and "Error" not in errors
