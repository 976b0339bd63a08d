"""`gnano demo`, tiny: the whole way, stopped, gone on with, and shown again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = [
    "--data.tokenizer", "bpe-512",
    "--data.heldout", "0.1",
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
]  # fmt: skip


def command(folder: Path) -> list[str]:
    places = ["--data.folder", str(folder / "data"), "--out", str(folder / "run")]
    return [sys.executable, "-m", "gnano", "demo", *TINY, *places]


def demo(folder: Path) -> str:
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that was stopped by Ctrl-C in the middle of training."""
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
    assert "the same command goes on" in output
    return folder


def test_the_whole_way_and_again(folder: Path) -> None:
    first = demo(folder)  # goes on where Ctrl-C stopped it
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

    second = demo(folder)
    assert "Already complete" in second
    samples = first.index("4. What it writes")
    assert second[second.index("4. What it writes") :] == first[samples:]


def test_the_mix_that_was_asked_for_is_shown(folder: Path) -> None:
    output = demo(folder)
    for name, share in (("prose", "40%"), ("synthetic", "25%"), ("code", "35%")):
        row = next(line for line in output.splitlines() if line.strip().startswith(name))
        assert row.endswith(share)


def test_the_xz_figure_is_what_the_xz_program_says(folder: Path) -> None:
    import shutil

    from gnano.data import Corpus
    from gnano.demo import xz_bits_per_byte

    if shutil.which("xz") is None:
        pytest.skip("the xz program is not installed")
    corpus = Corpus(folder / "data")
    text = b"".join(corpus.heldout_text(number) for number in range(3))
    packed = subprocess.run(["xz", "-9", "-c"], input=text, capture_output=True, check=True).stdout
    assert xz_bits_per_byte(corpus) == (len(text), 8 * len(packed) / len(text))
