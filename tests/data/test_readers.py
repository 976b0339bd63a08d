"""Documents of text, JSON lines and Parquet files, compressed, damaged or incomplete."""

import json
import random
import re
import sys

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis.strategies import lists, text
from tests.data.conftest import PACKED

from gnano.data.readers import Document, read_documents, read_texts
from gnano.data.text_files import RecordError

TEXTS = ["Grüße, 漢字 🙂\nand a second line\n", "two", "\u2028 three \u0085", '"quoted" \\n']


def texts_of(path, column="text"):
    return list(read_texts(path, column))


def as_jsonl(texts, column="text"):
    return "".join(json.dumps({column: t, "other": 1}) + "\n" for t in texts).encode()


def as_parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", [".txt", ".md", ".rst", ""])
def test_a_text_file_is_one_document(file, ending, packed):
    path = file(f"read.me{ending}{packed}", PACKED[packed](TEXTS[0].encode()))
    assert list(read_documents(path, "text")) == [Document(TEXTS[0])]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", [".jsonl", ".ndjson"])
def test_a_line_of_jsonl_is_a_document(file, ending, packed):
    path = file(f"lines{ending}{packed}", PACKED[packed](as_jsonl(TEXTS)))
    assert texts_of(path) == TEXTS


def test_all_row_groups_of_parquet_are_read(tmp_path):
    texts = [f"document {n}" for n in range(1_000)]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=30)
    assert texts_of(path) == texts


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_all_kinds_of_string_columns_are_read(tmp_path, kind):
    texts = [f"{row} of {n}" for n in range(10) for row in range(30)]
    path = tmp_path / "rows.parquet"
    with pyarrow.parquet.ParquetWriter(path, pyarrow.schema([("text", kind)])) as writer:
        for n in range(10):  # a separate dictionary in every row group
            rows = pyarrow.array([*texts[30 * n : 30 * n + 30], None])
            rows = rows.dictionary_encode() if pyarrow.types.is_dictionary(kind) else rows
            writer.write_table(pyarrow.table({"text": rows.cast(kind)}))
    assert texts_of(path) == texts


def test_a_large_parquet_file_is_never_completely_in_memory(tmp_path):
    text = noise(2_000).decode()
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": [f"{n} {text}" for n in range(20_000)]})  # one row group
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    size = table.nbytes
    del table
    before = pyarrow.total_allocated_bytes()
    most = max(pyarrow.total_allocated_bytes() for _ in read_documents(path, "text")) - before
    assert most < size / 3


def test_jsonl_and_parquet_give_the_same_documents(file, tmp_path):
    texts = [f"document {n}" for n in range(1_000)]
    jsonl = file("lines.jsonl", as_jsonl(texts, "body"))
    parquet = as_parquet(tmp_path / "rows.parquet", id=list(range(1_000)), body=texts)
    assert texts_of(jsonl, "body") == texts_of(parquet, "body") == texts


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_archives_joined_with_cat_are_read_to_the_end(file, packed):
    both = PACKED[packed](b"one\n") + PACKED[packed](b"two\n")
    assert texts_of(file(f"a.txt{packed}", both)) == ["one\ntwo\n"]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_an_empty_file_holds_no_document(file, ending, packed):
    assert texts_of(file(f"empty{ending}{packed}", PACKED[packed](b""))) == []


def test_a_parquet_file_without_rows_holds_no_document(tmp_path):
    empty = pyarrow.array([], pyarrow.string())
    assert texts_of(as_parquet(tmp_path / "rows.parquet", text=empty)) == []


def test_blank_documents_and_blank_lines_are_skipped(file, tmp_path):
    lines = ['{"text": "a"}', "", "  ", r'{"text": " \n"}', '{"text": null}', '{"text": "b"}']
    rows = pyarrow.array(["a", "", None, " \n", "b"])
    assert texts_of(file("blank.txt", " \n\n\t\n")) == []
    assert texts_of(file("lines.jsonl", "\n".join(lines))) == ["a", "b"]
    assert texts_of(as_parquet(tmp_path / "rows.parquet", text=rows)) == ["a", "b"]


paragraphs = lists(text("ab é\n", min_size=1).filter(str.strip), min_size=1, max_size=30)


@settings(deadline=None, max_examples=50)
@given(paragraphs=paragraphs)
def test_the_pieces_of_a_long_text_join_to_the_text(tmp_path_factory, paragraphs):
    content = "\n\n".join(paragraph * 500 for paragraph in paragraphs)
    path = tmp_path_factory.mktemp("long") / "long.txt"
    path.write_text(content, newline="")
    assert "".join(texts_of(path)).rstrip() == content.rstrip()


def test_a_long_text_is_split_only_at_blank_lines(file):
    paragraph = "a line of forty-four characters and its end\n" * 100 + "\n"
    pieces = texts_of(file("long.txt", paragraph * 40))
    assert len(pieces) > 1
    assert "".join(pieces) == paragraph * 40
    assert all(piece.endswith("\n\n") for piece in pieces)
    assert all(16_384 <= len(piece) < 16_384 + len(paragraph) for piece in pieces[:-1])


def test_a_long_text_without_blank_lines_is_not_split(file):
    content = "one line\n" * 10_000
    assert texts_of(file("long.txt", content)) == [content]


@pytest.mark.parametrize("packed", PACKED)
def test_lines_of_text_end_in_lf_and_strings_stay_as_they_are(file, tmp_path, packed):
    text = file(f"a.txt{packed}", PACKED[packed](b"one\r\ntwo\rthree\n"))
    assert texts_of(text) == ["one\ntwo\nthree\n"]
    strings = ["one\r\ntwo\rthree\n", "four"]
    jsonl = as_jsonl(strings).replace(b"\n", b"\r\n")
    assert texts_of(file(f"a.jsonl{packed}", PACKED[packed](jsonl))) == strings
    assert texts_of(as_parquet(tmp_path / "a.parquet", text=strings)) == strings


BROKEN = {
    "cut": '{"text": "b}',
    "too deep": "[" * 100_000,
    "too large a number": '{"n": ' + "9" * 5_000 + "}",
    "two on a line": '{"text": "a"} b',
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_line_that_is_not_json_is_named_and_the_others_are_read(file, broken):
    path = file("lines.jsonl", f'{{"text": "a"}}\n\n{BROKEN[broken]}\n{{"text": "b"}}\n')
    first, error, last = read_documents(path, "text")
    assert (first, last) == (Document("a"), Document("b"))
    assert isinstance(error, RecordError) and error.line == 3
    with pytest.raises(ValueError, match=r"lines\.jsonl, line 3: it is not JSON"):
        texts_of(path)


def test_an_error_for_a_wrong_column_lists_the_columns(file, tmp_path):
    jsonl = file("lines.jsonl", '{"content": "a", "url": "b"}\n')
    parquet = as_parquet(tmp_path / "rows.parquet", content=["a"], url=["b"])
    for path in jsonl, parquet:
        with pytest.raises(ValueError, match=r"'text'.*'content', 'url'") as error:
            texts_of(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("line", ['{"content": "b"}', '{"text": 5}', '["b"]', "null"])
def test_a_record_without_text_is_named_by_its_line(file, line):
    path = file("lines.jsonl", f'{{"text": "a"}}\n\n{line}\n')
    with pytest.raises(ValueError, match=r"lines\.jsonl, line 3: it holds no text in a column"):
        texts_of(path)


def test_a_parquet_column_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rows\.parquet.*no text in a column 'text'"):
        texts_of(as_parquet(tmp_path / "rows.parquet", text=[1, 2]))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_is_not_utf8_is_named(file, name):
    path = file(name, '{"text": "café"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name}, line 1: its byte 0xE9 is not UTF-8"):
        texts_of(path)


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"\x89PNG\r\n\x1a\n\x00\x00\x00\r"])
def test_a_binary_or_utf_16_file_is_refused(file, content):
    with pytest.raises(ValueError, match=r"a\.txt is (UTF-16|a binary file, not text)"):
        texts_of(file("a.txt", content))


def noise(size):
    """Return text that compresses poorly."""
    rng = random.Random(0)
    return "\n".join("".join(rng.choices("abcdef ", k=50)) for _ in range(size // 51)).encode()


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_damaged_archive_is_named(file, packed):
    content = PACKED[packed](noise(20_000))
    rng = random.Random(0)
    for place in rng.sample(range(20, len(content)), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        try:
            assert texts_of(file(f"a.txt{packed}", damaged))[0].encode() == noise(20_000)
        except ValueError as error:
            assert f"a.txt{packed}" in str(error)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_file_that_is_not_an_archive_is_named(file, packed):
    with pytest.raises(ValueError, match=rf"a\.txt{packed}: it is damaged"):
        texts_of(file(f"a.txt{packed}", b"plain text, renamed"))


@pytest.mark.parametrize("content", ["", "not a table", "PAR1 PAR1 PAR1"])
def test_a_file_that_is_not_parquet_is_named(file, content):
    with pytest.raises(ValueError, match=r"rows\.parquet: it is not a readable Parquet file"):
        texts_of(file("rows.parquet", content))


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
def test_a_truncated_parquet_file_is_named_in_one_sentence(file, tmp_path, part):
    content = as_parquet(tmp_path / "complete.parquet", text=[noise(5_000).decode()]).read_bytes()
    with pytest.raises(ValueError, match=r"rows\.parquet: it is not a readable") as error:
        texts_of(file("rows.parquet", content[: int(part * len(content))]))
    assert re.search(r"[^.]\.$", str(error.value))
    assert "\n" not in str(error.value)


def test_a_damaged_parquet_file_is_named(file, tmp_path):
    texts = noise(200_000).decode().split("\n")
    content = as_parquet(tmp_path / "complete.parquet", text=texts).read_bytes()
    rng = random.Random(0)
    refused = 0
    for place in rng.sample(range(len(content)), 100):
        damaged = bytearray(content)
        damaged[place : place + 8] = rng.randbytes(8)
        try:
            texts_of(file("rows.parquet", damaged))  # it has no checksum: text may just differ
        except ValueError as error:
            refused += 1
            assert "rows.parquet" in str(error)
    assert refused > 10


@pytest.mark.parametrize(("name", "module"), [("a.parquet", "pyarrow"), ("a.txt.zst", "zstandard")])
def test_a_missing_package_is_named_with_the_install_command(file, monkeypatch, name, module):
    for loaded in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    with pytest.raises(ValueError, match=rf"needs {module}: pip install 'auto-g-nano\[data\]'"):
        texts_of(file(name, b"anything"))
