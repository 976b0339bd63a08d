"""Records are known by what a file holds, whatever it is called and however it is packed.

The first table has every spelling of the same records, and the tests go through every door that
reads records: none may take one of them for raw text.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis.strategies import lists, text

from gnano.cli import tokenizer as tokenizer_command
from gnano.config.data_config import SourceConfig
from gnano.data.ngram_overlap import DecontaminationFilter
from gnano.data.readers import detect_form, read_records, read_texts
from gnano.data.record_errors import BadRecordCounter
from gnano.data.sft.record_loading import read_conversation_files
from gnano.evals.eval_tasks import load_tasks
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

TEXTS = [f"Grüße {n}, 漢字 🙂 {'and some more words ' * 5}\nend {n}" for n in range(40)]


def lines(records, end="\n", **options):
    return "".join(json.dumps(record, **options) + end for record in records).encode()


def table(records, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def parquet(records):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), out)
    return out.getvalue()


def listed(records, **options):
    return json.dumps(records, **options).encode()


def marked(records):
    return b"\xef\xbb\xbf\r\n" + lines(records, "\r\n")


SPELLINGS = {
    "a.jsonl": lines,
    "a.json": lines,
    "A.JSONL": lines,
    "a.jl": lines,
    "a.jsonlines": lines,
    "a.ndjson": lines,
    "windows.json": marked,
    "part-00000": lines,  # as Spark names them
    "a.txt": lines,
    "a.csv": table,
    "A.TSV": lambda records: table(records, "\t"),
    "list.json": listed,
    "list.jsonl": listed,
    "pretty.json": lambda records: listed(records, indent=1, ensure_ascii=False),
    "a.parquet": parquet,
    "a.pq": parquet,
    "two.jsonl": lambda records: lines(records[:9]) + b"\xef\xbb\xbf" + lines(records[9:]),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".GZ": gzip.compress,
}


def spelled(file, name, records, packing=""):
    return file(f"x/{name}{packing}", PACKED[packing](SPELLINGS[name](records)))


def values_of(path):
    return [record.value for record in BadRecordCounter(strict=True).filter(read_records(path))]


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_the_same_records(file, name, packing):
    if packing and name in ("a.parquet", "a.pq"):
        pytest.skip("Parquet is packed inside")
    path = spelled(
        file, name, [{"text": each, "id": f"{n}"} for n, each in enumerate(TEXTS)], packing
    )
    assert [value["text"] for value in values_of(path)] == TEXTS
    assert list(read_texts(path, "text")) == TEXTS
    assert detect_form(path) != "text"


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_door_reads_every_spelling(file, tmp_path, name, capsys):
    path = str(spelled(file, name, [{"body": each, "id": f"{n}"} for n, each in enumerate(TEXTS)]))
    # tokenizer train
    out = tmp_path / "tokenizer"
    tokenizer_command.train_command((path,), out, vocab_size=300, column="body")
    assert Tokenizer.load(out).fingerprint == train_bpe(TEXTS, 300).fingerprint
    # sft, and with it dpo, smoke and chat's records
    asked = [{"instruction": each, "output": "yes"} for each in TEXTS]
    tuned = read_conversation_files([str(spelled(file, name, asked))]).records
    assert [one.turns[0].content for one in tuned] == TEXTS
    # decontamination and its search for items
    assert DecontaminationFilter([spelled(file, name, asked)]).is_contaminated(
        f"so {TEXTS[17]} it is"
    )
    # eval --files
    if name not in ("a.csv", "A.TSV"):  # a list of choices has no place in a field
        items = [{"query": each, "choices": ["a", "b"], "gold": 1} for each in TEXTS]
        (sheet,) = load_tasks([], [f"mine={spelled(file, name, items)}"])
        assert len(sheet.items) == len(TEXTS)


@pytest.mark.parametrize("name", ["a.json", "part-00000", "a.csv", "pretty.json", "a.pq"])
def test_prepare_trains_on_the_column_of_every_form(file, make, prepared, name):
    path = spelled(file, name, [{"body": each, "url": "https://x"} for each in TEXTS])
    config = make(a=["to be replaced"], heldout=0)
    source = SourceConfig(files=(str(path),), column="body")
    assert prepared(replace(config, sources={"a": source})).training_documents("a") == TEXTS


@settings(deadline=None, max_examples=40)
@given(texts=lists(text('a{}[],"\\\n\r\t\u2028\x85\x0c é🙂', min_size=1), min_size=2, max_size=8))
def test_what_strings_hold_misleads_no_reader(tmp_path_factory, texts):
    records = [{"text": each} for each in texts]
    for name, write in SPELLINGS.items():
        if name in ("a.csv", "A.TSV"):
            continue  # in a text file every line ends in LF
        path = tmp_path_factory.mktemp("any") / name
        path.write_bytes(write(records))
        assert values_of(path) == records


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", '{"one": "object"}\nand prose about it\n'),
        ("a.md", "[a link](https://x)\n"),
        ("a.py", '{"a": 1}\n[1]\n'),
        ("package.json", '{\n "name": "x",\n "files": [\n  {"a": 1}\n ]\n}\n'),
        ("tsconfig.json", '{\n // a comment\n "strict": true\n}\n'),
        ("notes", "{ braces }\n{ and more }\n"),
    ],
)
def test_what_is_text_stays_text(file, name, content):
    assert list(read_texts(file(name, content), "text")) == [content]


def test_one_object_over_several_lines_is_a_record_where_it_has_the_column(file):
    path = file("a.json", json.dumps({"text": "a\nb", "id": 1}, indent=1))
    assert list(read_texts(path, "text")) == ["a\nb"]


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE42", r"\ud83d\ud83d"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "list.json"])
def test_half_a_surrogate_pair_is_mended_for_every_reader(file, name, half):
    record = (
        f'{{"instruction": "a{half}z", "output": ["x", {{"{half}": "\\ud83d\\ude42 {half}"}}]}}'
    )
    content = f"[{record}]" if name == "list.json" else f"{record}\n{record}\n"
    for value in values_of(file(name, content)):
        whole = json.dumps(value, ensure_ascii=False)
        assert whole.encode().decode() == whole and "\ufffd" in whole and "🙂" in whole


def test_a_column_that_plain_text_has_no_use_for_is_refused(file, make, prepared):
    path = str(file("a.txt", "prose\n"))
    config = replace(make(a=["x"]), sources={"a": SourceConfig(files=(path,), column="body")})
    with pytest.raises(ValueError, match=r"column is 'body', but .*a\.txt is plain text"):
        prepared(config)
    with pytest.raises(ValueError, match=r"column is 'body', but .*a\.txt is plain text"):
        tokenizer_command.train_command((path,), file("x", "").parent / "out", column="body")
