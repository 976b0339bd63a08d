"""Any text is read the same everywhere, JSON is strict, and a write is complete or undone."""

import ast
import errno
import io
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import characters, lists, sampled_from, text

import gnano
from gnano.chat.conversation import ConversationHistory
from gnano.config.recipe import load_recipe
from gnano.data.sft.chat_template import load_template
from gnano.model.hf_io import read_json_object
from gnano.utils import files
from gnano.utils.files import dump_json, read_text
from gnano.utils.terminal import prepare_streams

SOURCE = Path(gnano.__file__).parent
LINES = lists(text(characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"])))


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "latin-1"))


@given(lines=LINES, ending=sampled_from(["\n", "\r\n", "\r"]), mark=sampled_from(["", "\ufeff"]))
def test_lines_end_only_in_lf_crlf_or_cr(lines, ending, mark):
    content = (mark + "".join(line + ending for line in lines)).encode()
    with pytest.MonkeyPatch.context() as patch:
        stdin(patch, content)
        assert read_text(None).split("\n") == [*lines, ""]
        stdin(patch, content)
        prepare_streams()
        assert list(sys.stdin) == [f"{line}\n" for line in lines]


def read_prompts_file(path: Path) -> list[str]:
    from gnano.reporting.completions import read_prompts

    return read_prompts((), path, True)


def was_stopped(path: Path) -> list[Any]:
    return [exchange.was_stopped for exchange in ConversationHistory.load(path).exchanges]


MESSAGES = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "stopped": True},
]
READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "mine.toml": (lambda path: load_recipe(str(path)), "[data]\nfolder = 'é'\n"),
    "template.toml": (lambda path: load_template(str(path)), 'assistant = "é:\\n"\n'),
    "template.json": (lambda path: load_template(str(path)), '{"assistant":\n"é:\\n"}'),
    "talk.json": (was_stopped, json.dumps({"messages": MESSAGES}, indent=1)),
    "config.json": (read_json_object, '{"a":\n"é"}\n'),
    "prompts.txt": (read_prompts_file, "é\n\n\u2028b\n"),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_accepts_a_byte_order_mark_and_crlf(name, tmp_path):
    read, content = READERS[name]
    path = tmp_path / name
    path.write_bytes(content.encode())
    expected = read(path)
    assert expected
    for saved in "\ufeff" + content, "\ufeff" + content.replace("\n", "\r\n"):
        path.write_bytes(saved.encode())
        assert read(path) == expected


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", sorted(READERS.keys() - {"talk.json"}))
def test_utf_16_is_refused_by_name(name, encoding, tmp_path):
    read, content = READERS[name]
    path = tmp_path / name
    path.write_bytes(("\ufeff" + content).encode(encoding))
    with pytest.raises(ValueError, match=rf"{name} is .*UTF-16 text.*iconv"):
        read(path)


def test_the_line_of_bytes_that_are_not_utf_8_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 4 is not UTF-8"):
        read_text(path)


# their JSON holds only integers and strings, or gnano alone reads or hashes it
USES_JSON_DUMPS = {
    "data/sft/jinja_template.py",
    "tokenizer/hf_tokenizer.py",
    "checkpoint/run_checkpoints.py",
    "checkpoint/export_weights.py",
    "data/manifest.py",
    "data/prepare/cluster_steps.py",
    "data/prepare/worker_pool.py",
    "data/readers.py",  # to replace lone surrogates
    "data/sft/chat_template.py",
    "data/source_files.py",
    "demo/python_corpus.py",
    "evals/result_store.py",  # to compare settings
    "evals/runner.py",  # to compare settings
    "export/formats.py",  # a path as a Python string
    "export/model_card.py",  # a path as a Python string
    "model/lora.py",  # in an error message
    "serve/api_requests.py",  # in an error message
    "tokenizer/bpe.py",
    "train/distributed/watchdog.py",
    "train/resolve.py",  # in an error message
    "train/run_dir.py",
    "utils/files.py",
    "utils/terminal.py",  # to escape a character
}


def test_numbers_that_are_not_finite_become_null():
    value = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, "d": 1, "e": True}
    found = json.loads(dump_json(value))
    assert found == {"a": [None, [None, 1.5]], "b": {"c": None}, "d": 1, "e": True}
    assert dump_json({"ä": 1}, ensure_ascii=False, indent=1) == '{\n "ä": 1\n}'


def test_modules_that_write_metrics_as_json_use_dump_json():
    users = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if "json.dump" in file.read_text("utf-8")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.dumps", "json.dump")
    }
    assert "utils/files.py" in users
    assert users <= USES_JSON_DUMPS, "use dump_json, or list here a module without floats"


def test_a_new_and_a_replaced_file_have_their_full_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.atomic_write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    files.atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_the_content_is_synced_before_the_rename_and_the_folder_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a", []
    sync = files.fsync_path

    def record(synced: Path) -> None:
        done.append((synced.is_dir(), path.exists()))
        sync(synced)

    monkeypatch.setattr(files, "fsync_path", record)
    files.atomic_write_bytes(path, b"x")
    assert done == [(False, False), (True, True)]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError) as error:
        files.atomic_write_bytes(path, b"new")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), files.atomic_replace(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_two_processes_use_different_temporary_files(tmp_path: Path) -> None:
    with files.atomic_replace(tmp_path / "a") as first:
        first.write_bytes(b"first")
        if (child := os.fork()) == 0:
            with files.atomic_replace(tmp_path / "a") as second:
                second.write_bytes(b"second")
                os._exit(0 if second != first else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert first.read_bytes() == b"first"
