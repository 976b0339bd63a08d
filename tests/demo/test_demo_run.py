"""A tiny `gnano demo`: interrupted, resumed, run again when complete, and tuned."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TINY = [
    "--data.tokenizer", "bpe-512",
    "--data.heldout-fraction", "0.1",
    "--data.sources.prose.max-bytes", "150000",
    "--data.sources.synthetic.max-bytes", "100000",
    "--data.sources.code.max-bytes", "150000",
    "--model.vocab-size", "512",
    "--model.n-embd", "32",
    "--model.n-layer", "1",
    "--model.block-size", "64",
    "--train.steps", "120",
    "--train.tokens-per-step", "1024",
    "--train.eval-every", "40",
    "--train.save-every", "40",
    "--questions", "300",
]  # fmt: skip


def command(folder: Path) -> list[str]:
    places = ["--data.folder", str(folder / "data"), "--out", str(folder / "run")]
    return [sys.executable, "-m", "gnano", "demo", *TINY, *places]


@cache  # the output of a complete demo is always the same
def complete(folder: Path) -> str:
    return demo(folder)


def demo(folder: Path) -> str:
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that Ctrl-C interrupted in the middle of training."""
    folder = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log = folder / "run" / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 10):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert "same command" in output
    return folder


def test_an_interrupted_demo_resumes_and_a_complete_one_repeats_its_results(folder: Path) -> None:
    first = demo(folder)  # resumes after the interruption
    run = folder / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 121)), "steps were lost or done twice"
    assert rows[-1]["final"] and rows[-1]["heldout"]["bits_per_byte"] < 8

    assert "bits per byte" in first and "xz -9 needs" in first
    for title in ("prose", "story", "code"):
        assert f"── {title} " in first
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "xz -9" in (run / "report.html").read_text()
    assert "gnano generate" in first

    second = complete(folder)
    assert "Already complete" in second
    for start, end in (
        ("4. Samples of the model", "5. Tuning on questions"),
        ("held-out answers", "  gnano generate"),
    ):
        assert section(second, start, end) == section(first, start, end)


def section(output: str, start: str, end: str) -> str:
    return output[output.index(start) : output.index(end)]


def test_tuning_improves_the_answers_to_held_out_questions(folder: Path) -> None:
    output = complete(folder)
    run = folder / "run-sft"
    answers = json.loads((run / "answers.json").read_text())
    before, after = answers["losses"]["all"]
    assert after < before - 0.2
    assert f"{before:.3f}" in output and f"{after:.3f}" in output
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["step"] == 0 and metrics[-1]["heldout"]["loss"] == pytest.approx(after)
    shown = output[output.index("held-out answers") :]
    assert shown.count("  before: ") == shown.count("  after:  ") == shown.count("  right:  ") == 3
    page = (run / "answers.md").read_text()
    for line in shown.splitlines():
        if line.startswith("  right:"):
            assert line.removeprefix("  right:").strip()[:40] in page


def test_a_negative_number_of_questions_is_refused(folder: Path) -> None:
    arguments = [*command(folder), "--questions", "-1"]
    refused = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and not refused.stdout
    assert "questions is -1; use 0 (none) or more" in refused.stderr


def test_the_shares_of_the_recipe_are_printed(folder: Path) -> None:
    output = complete(folder)
    for name, share in (("prose", "40%"), ("synthetic", "25%"), ("code", "35%")):
        row = next(line for line in output.splitlines() if line.strip().startswith(name))
        assert row.endswith(share)


def test_the_xz_figure_is_that_of_the_xz_program(folder: Path) -> None:
    from gnano.data.packed_dataset import TokenizedCorpus
    from gnano.demo.demo_run import compute_xz_bits_per_byte

    if shutil.which("xz") is None:
        pytest.skip("the xz program is not installed")
    corpus = TokenizedCorpus(folder / "data")
    text = b"".join(corpus.heldout_text(number) for number in range(3))
    packed = subprocess.run(["xz", "-9", "-c"], input=text, capture_output=True, check=True).stdout
    assert compute_xz_bits_per_byte(corpus) == (len(text), 8 * len(packed) / len(text))


def test_without_plot_packages_and_questions_the_demo_still_writes(folder: Path) -> None:
    complete(folder)
    (folder / "run" / "loss.png").unlink()
    hide = (
        "import sys; sys.modules.update(matplotlib=None, plotext=None); "
        "from gnano.cli import main; main()"
    )
    arguments = [sys.executable, "-c", hide, *command(folder)[3:], "--questions", "0"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "4. Samples of the model" in done.stdout and "5. Tuning" not in done.stdout
    assert done.stderr.count("pip install 'auto-g-nano[plot]'") == 2
    written = next(line for line in done.stdout.splitlines() if line.startswith("Written: "))
    assert "report.html" in written and "loss.png" not in written
