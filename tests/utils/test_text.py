"""One text, saved by any editor, is the same text at every door."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import characters, lists, sampled_from, text

from gnano.chat.conversation import ConversationHistory
from gnano.config.recipe import load_recipe
from gnano.data.sft.chat_template import load_template
from gnano.model.hf_io import read_json_object
from gnano.utils.text import decode_text, open_stdin, read_stdin, read_text

LINES = lists(text(characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"])))


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "latin-1"))


@given(lines=LINES, ending=sampled_from(["\n", "\r\n", "\r"]), mark=sampled_from(["", "\ufeff"]))
def test_lines_end_in_lf_crlf_or_cr_and_in_nothing_else(lines, ending, mark):
    content = (mark + "".join(line + ending for line in lines)).encode()
    assert decode_text(content, "it").split("\n") == [*lines, ""]
    with pytest.MonkeyPatch.context() as patch:
        stdin(patch, content)
        assert read_stdin().split("\n") == [*lines, ""]
        stdin(patch, content)
        assert list(open_stdin()) == [f"{line}\n" for line in lines]


def generate_reads(path: Path) -> list[str]:
    from gnano.reporting.completions import read_prompts

    return read_prompts((), path, True)


def marked(path: Path) -> list[Any]:
    return [exchange.was_stopped for exchange in ConversationHistory.load(path).exchanges]


MESSAGES = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "stopped": True},
]
DOORS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "mine.toml": (lambda path: load_recipe(str(path)), "[data]\nfolder = 'é'\n"),
    "template.toml": (lambda path: load_template(str(path)), 'assistant = "é:\\n"\n'),
    "template.json": (lambda path: load_template(str(path)), '{"assistant":\n"é:\\n"}'),
    "talk.json": (marked, json.dumps({"messages": MESSAGES}, indent=1)),
    "config.json": (read_json_object, '{"a":\n"é"}\n'),
    "prompts.txt": (generate_reads, "é\n\n\u2028b\n"),
}


@pytest.mark.parametrize("name", DOORS)
def test_every_door_reads_what_an_editor_saved(name, tmp_path):
    read, content = DOORS[name]
    path = tmp_path / name
    path.write_bytes(content.encode())
    expected = read(path)
    assert expected
    for saved in "\ufeff" + content, "\ufeff" + content.replace("\n", "\r\n"):
        path.write_bytes(saved.encode())
        assert read(path) == expected


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", sorted(DOORS.keys() - {"talk.json"}))
def test_utf_16_is_refused_by_its_name(name, encoding, tmp_path):
    read, content = DOORS[name]
    path = tmp_path / name
    path.write_bytes(("\ufeff" + content).encode(encoding))
    with pytest.raises(ValueError, match=rf"{name} is .*UTF-16 text.*iconv"):
        read(path)


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 4 is not UTF-8"):
        read_text(path)
