"""`gnano generate` reads prompts from anywhere, and prints texts or JSON."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.runner import error_sentence, output, run_gnano


@pytest.fixture
def generate(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Return what is printed for the arguments and the standard input."""

    def run_command(*arguments: object, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return output(capsys, "generate", run, *arguments)

    return run_command


def test_prompts_come_from_arguments_files_and_pipes(generate, tmp_path):
    options = "-n", 8, "--seed", 1
    expected = generate("the river\nflows", *options)
    assert expected.startswith("the river\nflows")
    file = tmp_path / "prompt.txt"
    file.write_text("the river\nflows\n")
    assert generate("--file", file, *options) == expected
    assert generate(*options, stdin="the river\nflows\n") == expected
    assert generate("--file", "-", *options, stdin="the river\nflows\n") == expected


def test_lines_split_only_at_newlines(generate, tmp_path):
    """Form feed, U+0085 and U+2028 end no line; a byte order mark and CR are not text."""
    lines = ["It was\fone page", "the\u2028end", "a\x85b", "last"]
    content = "\ufeff" + "\r\n".join([*lines[:2], "", " ", *lines[2:]])
    file = tmp_path / "prompts.txt"
    file.write_text(content, "utf-8", newline="")
    options = "--lines", "--json", "-n", 2
    for found in (
        generate("--file", file, *options),
        generate(*options, stdin=file.read_text("utf-8-sig")),
    ):
        assert [one["prompt"] for one in json.loads(found)["completions"]] == lines


def test_a_batch_gives_the_texts_of_single_prompts(generate):
    options = "-n", 8, "--seed", 1
    both = generate("the river", "a tree", *options)
    for number, prompt in enumerate(("the river", "a tree"), 1):
        single = generate(prompt, *options)
        assert f"── {number} of 2 ─" in both and single in both
    samples = generate("the river", "--samples", 3, *options)
    assert samples.count("the river") >= 3 and generate("the river", *options) in samples


def test_json_has_token_ids_finish_reasons_logprobs_and_speed(generate):
    options = "-n", 6, "--temperature", 0, "--json", "--logprobs", 2
    found = json.loads(generate("--lines", *options, stdin="the river\n\na tree\n"))
    assert [one["prompt"] for one in found["completions"]] == ["the river", "a tree"]
    assert found["seconds"] > 0 and found["tokens_per_s"] > 0
    assert found["tokens"] == sum(len(one["token_ids"]) for one in found["completions"])
    for one in found["completions"]:
        assert one["finish_reason"] in ("length", "stop") and one["prompt_tokens"] >= 2
        assert len(one["logprobs"]) == len(one["token_ids"])
        for item in one["logprobs"]:
            assert len(item["top"]) == 2
            # greedy: the token is the likeliest
            assert item["top"][0] == [item["token"], item["logprob"]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "There is no prompt in standard input: it has no line with text."),
        (["--lines"], "There is no prompt in standard input: it has no line with text."),
        (["x", "--file", "y"], "Prompts come as arguments or from a file, not both"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
        (["x", "-n", "-5"], "tokens is -5; it must be at least 0 and at most 2,147,483,647."),
        (["--file", sys.executable], "is not UTF-8 text"),
        (
            ["x", "--no-repeat-ngram-size", "9" * 20],
            "it must be at least 0 and at most 2,147,483,647.",
        ),
        (["x", "--repetition-penalty", "1e-45"], "it must be at least 0.01 and at most 100."),
        (["x", "--seed", "-1"], "seed is -1; it must be at least 0"),
        (["x", "--samples", "0"], "samples is 0; it must be at least 1."),
        (["x", "--logprobs", "1"], "are printed with --json"),
        (["x", "--min-p", "2"], "min_p is 2.0; it must be at least 0 and at most 1."),
        (["word " * 500], "The prompt has "),
    ],
)
def test_invalid_arguments_are_one_sentence(run, arguments, reason, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert reason in error_sentence(capsys, "generate", run, *arguments)


def test_a_refused_prompt_is_not_printed(run, capsys):
    code, out, _ = run_gnano(capsys, "generate", run, "word " * 500)
    assert code == 2 and out == ""


@pytest.mark.slow
def test_a_closed_pipe_exits_without_a_traceback(run):
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
